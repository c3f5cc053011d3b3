"""How a group of workers is asked for, and what its end is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cabruca.config.load import config_from_dict
from cabruca.distributed.desk import Failure
from cabruca.distributed.group import START_FAILURES, _clear, _error_of, _patience_s, _start_failures, _trainer
from cabruca.distributed.team import Team
from cabruca.distributed.train_job import TrainJob
from cabruca.distributed.worker import Place
from cabruca.errors import DataError, OutOfMemory, RunError, TrainingDiverged
from cabruca.run import TaskFactory

CONFIG = config_from_dict({"distributed": {"max_failures": 2, "start_timeout_s": 20, "elastic_check_s": 7}})


def job(task: TaskFactory = lambda config: None) -> TrainJob:  # type: ignore[assignment,return-value]
    return TrainJob(Place(1, False, 0, "."), None, CONFIG, "run", task, {})


@pytest.mark.usefixtures("cluster")
def test_no_failure_is_tried_for_ever(tmp_path: Path) -> None:
    """Ray's own default starts a group that cannot start again and again, in silence."""
    asked: Any = _trainer(job(), Team(1, 2, {"CPU": 1.0}, False), CONFIG, "run_1", str(tmp_path))
    failure = asked.run_config.failure_config
    assert (failure.max_failures, failure.controller_failure_limit) == (2, START_FAILURES + 2 * 2)
    scaling = asked.scaling_config
    assert (scaling.min_workers, scaling.max_workers) == (1, 2)
    assert scaling.elastic_resize_monitor_interval_s == 7


@pytest.mark.parametrize(
    ("max_failures", "start_timeout_s", "elastic", "limit"),
    [(3, 60, False, 3), (0, 60, False, 3), (20, 60, False, 20), (3, 60, True, 6), (3, 10, True, 12), (0, 10, True, 3)],
)
def test_a_lost_node_costs_starts_only_while_it_is_still_counted(
    max_failures: int, start_timeout_s: float, elastic: bool, limit: int
) -> None:
    """Ray counts failed starts over the whole run: with three a first lost node left none for growing back."""
    settings = {"max_failures": max_failures, "start_timeout_s": start_timeout_s}
    assert _start_failures(config_from_dict({"distributed": settings}), elastic=elastic) == limit


def test_patience_covers_every_attempt_to_start() -> None:
    assert _patience_s(CONFIG) > (START_FAILURES + 1) * 20


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (Failure(0, "DataError", "a picture is broken"), DataError, "a picture is broken"),
        (Failure(1, "DataError", "a picture is broken"), DataError, "worker 1: a picture is broken"),
        (Failure(1, "TrainingDiverged", "not finite"), TrainingDiverged, "worker 1: not finite"),
        (Failure(1, "OutOfMemory", "step 1 (worker 0: full)"), OutOfMemory, "step 1 (worker 0: full)"),
        (Failure(1, "KeyError", "x"), RunError, "worker 1: x"),
    ],
)
def test_a_failure_keeps_its_kind_and_names_the_worker(failure: Failure, kind: type[Exception], message: str) -> None:
    error = _error_of(failure, RuntimeError("a long story"), [], CONFIG)
    assert type(error) is kind
    assert str(error) == message


class WorkerGroupError(Exception):
    """As Ray's: the ranks that failed."""

    def __init__(self) -> None:
        super().__init__("long\nstory")
        self.worker_failures = {1: RuntimeError("The actor died: SIGKILL\nmore")}


class ControllerError(Exception):
    """As Ray's."""

    controller_failure = TimeoutError("no room for 4 workers\nmore")


@pytest.mark.parametrize(
    ("error", "troubles", "said"),
    [
        (WorkerGroupError(), [], "distributed.max_failures 2 allows; last: worker 1: The actor died: SIGKILL; go on"),
        (WorkerGroupError(), ["worker 0: OSError: disk full", "worker 1: lost"], "last: worker 0: OSError: disk full;"),
        (ControllerError(), [], "within distributed.start_timeout_s 20 s (no room for 4 workers); see `cabruca doc"),
    ],
)  # fmt: skip
def test_lost_workers_are_told_in_a_line(error: Exception, troubles: list[str], said: str) -> None:
    found = _error_of(None, error, troubles, CONFIG)
    assert isinstance(found, RunError)
    assert said in str(found)
    assert "\n" not in str(found)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_only_the_books_of_this_run_are_cleared(tmp_path: Path, form: str) -> None:
    names = ["many_123", "many_124", "many_2_125", "other_126", "many_notes"]
    for name in names:
        (tmp_path / ".ray" / name).mkdir(parents=True)
    _clear(form.format(tmp_path / ".ray"), "many")
    assert sorted(p.name for p in (tmp_path / ".ray").iterdir()) == ["many_2_125", "many_notes", "other_126"]


def test_an_empty_folder_of_books_goes_too(tmp_path: Path) -> None:
    (tmp_path / ".ray" / "many_123").mkdir(parents=True)
    _clear(str(tmp_path / ".ray"), "many")
    assert not (tmp_path / ".ray").exists()
    _clear("nowhere://bucket/.ray", "many")
