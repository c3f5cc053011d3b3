"""A run on workers is the run in one process: same weights, folder, numbers, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray_line import alone, assert_same_weights, many, on_workers, weights, worker_pids
from ray_tasks import BugOnRankOne, FailsOnRankOne, FewPictures
from run_helpers import rows

from cabruca.errors import ConfigError, RunError
from cabruca.train.protocols import BaseCallback, Record, RunInfo, TrainResult

pytestmark = pytest.mark.usefixtures("cluster")


class Seen(BaseCallback):
    """What the driver was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, object]] = []

    def on_start(self, info: RunInfo) -> None:
        self.events.append(("start", info.batch_size))

    def on_epoch(self, record: Record) -> None:
        self.events.append(("epoch", record.epoch))

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        self.events.append(("end", None if result is None else result.state))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    """A run of 2 epochs on 2 workers, and the same in this process."""
    out, seen = tmp_path_factory.mktemp("out"), Seen()
    config = many(out, training__num_epochs=2)
    assert on_workers(config, callbacks=[seen]).state == "finished"
    assert alone(config).state == "finished"
    return out, seen


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def learnt(row: dict[str, object]) -> dict[str, object]:
    """A row of the history without what is measured in seconds and megabytes."""
    return {k: v for k, v in row.items() if k not in ("time", "stage") and not k.startswith(("time/", "memory/"))}


def test_two_workers_learn_what_one_process_learns(finished: tuple[Path, Seen]) -> None:
    config = many(finished[0])
    assert_same_weights(weights(config), weights(config, "alone"))


def test_the_run_folder_is_the_same(finished: tuple[Path, Seen]) -> None:
    out, _ = finished
    ours, theirs = (files(out / name) for name in ("many", "alone"))
    assert ours == theirs
    assert json.loads((out / "many" / "status.json").read_text())["state"] == "finished"
    assert not (out / ".ray").exists()
    told = [[learnt(row) for row in rows(out / name / "metrics.jsonl")] for name in ("many", "alone")]
    assert told[0] == [pytest.approx(row, rel=1e-8) for row in told[1]]


def test_the_driver_hears_the_run(finished: tuple[Path, Seen]) -> None:
    assert finished[1].events == [("start", 4), ("epoch", 1), ("epoch", 2), ("end", "finished")]


def test_every_worker_is_named_in_the_log(finished: tuple[Path, Seen]) -> None:
    pids = worker_pids(finished[0] / "many")
    assert pids is not None
    assert len(set(pids)) == 2


def test_the_name_of_a_finished_run_is_refused_and_auto_says_that_it_is_finished(finished: tuple[Path, Seen]) -> None:
    config = many(finished[0], training__num_epochs=2)
    with pytest.raises(RunError, match="already holds a run; use another --experiment-name"):
        on_workers(config)
    result = on_workers(config, resume="auto")
    assert result.state == "finished"
    assert "raise --epochs to train on" in result.message


@pytest.mark.slow
def test_a_finished_run_is_lengthened(finished: tuple[Path, Seen], tmp_path: Path) -> None:
    longer = {"training.num_epochs": 3}
    config = many(finished[0], training__num_epochs=3)
    assert on_workers(config, resume="auto", explicit=longer).epochs == 3
    first = many(tmp_path, training__num_epochs=2)
    alone(first)
    own = many(tmp_path, training__num_epochs=3)
    alone(own, resume="auto", explicit=longer)
    assert_same_weights(weights(config), weights(own, "alone"))


def test_a_failing_rank_says_which_and_why(tmp_path: Path) -> None:
    config = many(tmp_path, distributed__max_failures=0)
    with pytest.raises(ConfigError, match=r"^worker 1: picture 7 is broken; mend it$"):
        on_workers(config, task=FailsOnRankOne)
    status = json.loads((tmp_path / "many" / "status.json").read_text())
    assert status["state"] == "failed"
    assert status["epoch"] == 1
    assert status["message"] == "ConfigError: worker 1: picture 7 is broken; mend it"
    assert "going on" not in (tmp_path / "many" / "train.log").read_text()


@pytest.mark.slow
def test_an_error_that_comes_again_at_the_same_place_ends_the_run(tmp_path: Path) -> None:
    """Three more attempts are allowed; the second already shows that it is no lost worker."""
    with pytest.raises(RunError, match=r"^worker 1: picture 7 is broken; mend it$"):
        on_workers(many(tmp_path), task=BugOnRankOne)
    text = (tmp_path / "many" / "train.log").read_text()
    assert text.count("going on after epoch 1, step 6 with 2 workers") == 1
    assert "worker 1 failed: ZeroDivisionError: picture 7 is broken" in text


@pytest.mark.slow  # tests/numerics/test_equivalence_line.py has it on ranks without Ray
def test_a_worker_without_pictures_does_not_hang(tmp_path: Path) -> None:
    config = many(tmp_path, training__num_epochs=2)
    assert on_workers(config, task=FewPictures).step == 4
    alone(config, task=FewPictures)
    assert_same_weights(weights(config), weights(config, "alone"))


def test_workers_that_do_not_fit_are_refused_before_the_folder_is_claimed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"4 workers x 1 CPU asked, 2 CPU free: use --workers 2 or add nodes"):
        on_workers(many(tmp_path, 4))
    assert not (tmp_path / "many").exists()


def test_a_batch_that_does_not_divide_is_refused_before_the_folder_is_claimed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size 3 does not divide over 2 workers; use 3 workers, or --batch"):
        on_workers(many(tmp_path, data__batch_size=3))
    assert not (tmp_path / "many").exists()
