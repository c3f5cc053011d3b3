"""Workers of trials wait for what others give back; they are not refused."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ray_line import many
from study_line import line_study

from cabruca.distributed.group import muster
from cabruca.distributed.room import take_from_the_dead, trials_at_once, wait_for_room
from cabruca.errors import ConfigError
from cabruca.tracking.study_dir import StudyDir

ONE_CPU = {"CPU": 1}


def never() -> None:
    return None


@pytest.fixture
def taken(cluster: object) -> Any:
    """An actor that has both CPUs of the room's cluster; killing it gives them back."""
    import ray

    @ray.remote(num_cpus=2)
    class Taker:
        def here(self) -> bool:
            return True

    actor: Any = Taker.remote()
    assert ray.get(actor.here.remote())
    yield actor
    ray.kill(actor)


def test_workers_wait_until_there_is_room(taken: Any, tmp_path: Path) -> None:
    import ray

    config = many(tmp_path, distributed__resources_per_worker=ONE_CPU)
    with pytest.raises(ConfigError, match="0 CPU free"):
        muster(ray, config)
    assert muster(ray, config, shares=True).most == 2
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(wait_for_room(config, never)), daemon=True)
    waiting.start()
    waiting.join(1.0)
    assert waiting.is_alive()
    ray.kill(taken)
    waiting.join(20)
    assert found == [None]


def test_what_the_dead_had_set_aside_is_there_again(cluster: object, tmp_path: Path) -> None:
    """As the workers of a trial whose process was killed: nobody gives their placement group back."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

    @ray.remote(num_cpus=0)
    class Maker:
        def make(self) -> str:
            group = placement_group([ONE_CPU, ONE_CPU])
            assert group.wait(20)
            return str(group.id.hex())

    maker: Any = Maker.remote()
    name = ray.get(maker.make.remote())
    config = many(tmp_path, distributed__resources_per_worker=ONE_CPU)
    assert wait_for_room(config, lambda: "its maker lives") == "its maker lives"
    ray.kill(maker)
    end = time.monotonic() + 20
    assert wait_for_room(config, lambda: "late" if time.monotonic() > end else None) is None
    assert placement_group_table()[name]["state"] == "REMOVED"
    own = placement_group([ONE_CPU])  # of a driver that lives
    assert own.wait(20)
    assert take_from_the_dead() == 0
    remove_placement_group(own)


def test_who_waits_can_leave(taken: Any, tmp_path: Path) -> None:
    config = many(tmp_path, distributed__resources_per_worker=ONE_CPU)
    assert wait_for_room(config, lambda: "SIGTERM") == "SIGTERM"


def test_what_would_never_fit_is_refused_at_once(cluster: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 workers x 2 CPU asked"):
        wait_for_room(many(tmp_path, distributed__resources_per_worker={"CPU": 2}), never)


@pytest.mark.parametrize(
    ("workers", "cpu", "at_once"), [(1, 1.0, 5), (2, 1.0, 1), (2, 0.5, 2), (2, 0.25, 4), (2, 8, 1)]
)
def test_as_many_trials_at_a_time_as_have_room_for_their_workers(
    cluster: object, tmp_path: Path, workers: int, cpu: float, at_once: int
) -> None:
    keys = {"workers_per_trial": workers, "max_concurrent_trials": 5, "resources_per_trial": {"cpu": cpu}}
    study = line_study(tmp_path, **keys)
    assert trials_at_once(study, StudyDir.of(study)) == at_once
