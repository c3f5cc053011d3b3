"""What is asked for against what is there, before anything starts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config
from cabruca.distributed.preflight import Asked, check_fit, fits, teams_that_fit, workers_that_fit
from cabruca.distributed.team import Team, check_batch, team_of
from cabruca.errors import ConfigError

GPU = {"CPU": 1.0, "GPU": 1.0}


def config(device: str = "auto", batch_size: int = 4, **distributed: Any) -> Config:
    return config_from_dict({"device": device, "data": {"batch_size": batch_size}, "distributed": distributed})


@pytest.mark.parametrize(
    ("asked", "nodes", "message"),
    [
        (Asked(4, 4, GPU), [{"CPU": 8, "GPU": 2}],
         "4 workers x 1 CPU + 1 GPU asked, 8 CPU, 2 GPU free: use --workers 2 or add nodes"),
        (Asked(4, 4, {"CPU": 1}), [{"CPU": 1}, {"CPU": 2}],
         "4 workers x 1 CPU asked, 3 CPU free on 2 nodes: use --workers 3 or add nodes"),
        (Asked(2, 2, {"CPU": 2}), [{"CPU": 1}, {"CPU": 1}], "ask for less in distributed.resources_per_worker"),
        (Asked(2, 2, {"CPU": 1}, "STRICT_SPREAD"), [{"CPU": 8}],
         "or another distributed.placement_strategy than STRICT_SPREAD"),
        (Asked(3, 3, {"CPU": 1}, "STRICT_PACK"), [{"CPU": 2}, {"CPU": 2}], "use --workers 2 or add nodes"),
        (Asked(2, 4, {"CPU": 1}), [{"CPU": 1}], "2 workers x 1 CPU asked"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_does(asked: Asked, nodes: list[dict[str, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_fit(asked, nodes)


def test_what_fits_passes() -> None:
    check_fit(Asked(2, 2, {"CPU": 1}), [{"CPU": 2}])
    check_fit(Asked(1, 8, {"CPU": 1}), [{"CPU": 1}])  # elastic: the least is enough
    check_fit(Asked(2, 2, {"CPU": 1}, "STRICT_SPREAD"), [{"CPU": 1}, {"CPU": 5}])


@pytest.mark.parametrize(
    ("strategy", "nodes", "teams"),
    [
        ("PACK", [{"CPU": 3}, {"CPU": 3}], 3),
        ("SPREAD", [{"CPU": 1}, {"CPU": 0.5}], 0),
        ("STRICT_PACK", [{"CPU": 3}, {"CPU": 3}], 2),
        ("STRICT_SPREAD", [{"CPU": 5}, {"CPU": 3}], 3),
        ("STRICT_SPREAD", [{"CPU": 8}], 0),
    ],
)
def test_teams_beside_one_another(strategy: str, nodes: list[dict[str, float]], teams: int) -> None:
    asked = Asked(2, 4, {"CPU": 1}, strategy)
    assert teams_that_fit(asked, nodes) == teams
    assert fits(asked, nodes) == (teams > 0)


def test_fractions_add_up() -> None:
    assert workers_that_fit({"CPU": 0.1}, [{"CPU": 0.1 + 0.2}]) == [3]


@pytest.mark.parametrize(
    ("given", "nodes", "team"),
    [
        (config(num_workers=2), [{"CPU": 8}], Team(2, 2, {"CPU": 4.0}, False)),
        (config(num_workers=3), [{"CPU": 8}], Team(3, 3, {"CPU": 2.0}, False)),
        (config(num_workers=4), [{"CPU": 2}], Team(4, 4, {"CPU": 1.0}, False)),
        (config(num_workers=2), [{"CPU": 8}, {"CPU": 4}], Team(2, 2, {"CPU": 4.0}, False)),
        (config(num_workers="auto"), [{"CPU": 16, "GPU": 4}], Team(4, 4, {"CPU": 4.0, "GPU": 1.0}, True)),
        (config(num_workers=[1, 2]), [{"CPU": 16, "GPU": 4}], Team(1, 2, {"CPU": 4.0, "GPU": 1.0}, True)),
        (config("cpu", num_workers=2), [{"CPU": 16, "GPU": 4}], Team(2, 2, {"CPU": 8.0}, False)),
        (config(num_workers=2, use_gpu=False), [{"CPU": 4, "GPU": 4}], Team(2, 2, {"CPU": 2.0}, False)),
        (config(num_workers=2, resources_per_worker={"CPU": 3, "big": 1}), [{"CPU": 8}],
         Team(2, 2, {"CPU": 3.0, "big": 1.0}, False)),
    ],
)  # fmt: skip
def test_a_worker_takes_its_share(given: Config, nodes: list[dict[str, float]], team: Team) -> None:
    assert team_of(given, nodes) == team
    assert team.backend == ("nccl" if team.use_gpu else "gloo")


@pytest.mark.parametrize(
    ("given", "nodes", "message"),
    [
        (config(num_workers="auto"), [{"CPU": 8}], "--workers auto takes the visible GPUs and there is none"),
        (config("cuda", num_workers=2), [{"CPU": 8}], "the cluster has none; use --device cpu"),
        (config("mps", num_workers=2), [{"CPU": 8}], "device 'mps' is one GPU for one process"),
        (config("cpu", num_workers=1, use_gpu=True), [{"CPU": 8, "GPU": 1}], "contradicts device 'cpu'"),
    ],
)
def test_contradictions_are_named(given: Config, nodes: list[dict[str, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        team_of(given, nodes)


def test_every_size_of_an_elastic_team_must_divide_the_batch() -> None:
    check_batch(config(batch_size=4), Team(1, 2, {}, False))
    check_batch(config(batch_size=12), Team(1, 4, {}, False))
    said = "data.batch_size 4 does not divide over 3 workers; use 2 or 4 workers, or "
    with pytest.raises(ConfigError, match=re.escape(f"{said}--batch-size 6") + "$"):
        check_batch(config(batch_size=4), Team(3, 3, {}, False))
    with pytest.raises(
        ConfigError, match=re.escape(f"{said}--batch-size 12 (every number from 1 to 4 must divide it)")
    ):
        check_batch(config(batch_size=4), Team(1, 4, {}, False))
    with pytest.raises(ConfigError, match=re.escape(f"{said}a narrower range (every number from 2 to 8 must")):
        check_batch(config(batch_size=4), Team(2, 8, {}, False))
