"""The small parts between driver and workers, without Ray."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memory_reporter import MemoryReporter

from cabruca.distributed.desk import Desk, Failure
from cabruca.distributed.ray_metrics import GaugeWatcher, RayMetrics
from cabruca.distributed.reporter import Lines, WorkerReporter
from cabruca.distributed.worker import Place, make_runtime
from cabruca.runtime import Runtime
from cabruca.tracking.study_place import StudyPlace
from cabruca.train.protocols import Record, Save, StopTraining


@pytest.mark.parametrize(
    ("cpus", "wanted", "budget"), [(1, 4, (1, 0)), (4, 1, (3, 1)), (4, 8, (1, 3)), (8, None, (6, 2))]
)
def test_a_worker_s_cpus_are_its_threads_and_loader_processes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpus: int, wanted: int | None, budget: tuple[int, int]
) -> None:
    """Whatever the machine has: other workers have the rest."""
    set_to: list[int] = []
    here = SimpleNamespace(get_world_rank=lambda: 3, get_world_size=lambda: 4, get_local_rank=lambda: 1)
    monkeypatch.setattr("ray.train.get_context", lambda: here)
    monkeypatch.setattr("torch.set_num_threads", set_to.append)
    monkeypatch.chdir(tmp_path)
    runtime = make_runtime(Place(cpus, use_gpu=False, loaders=wanted, folder=str(tmp_path)))
    assert (set_to, runtime.loaders) == ([budget[0]], budget[1])
    assert (runtime.rank, runtime.world_size, runtime.local_rank) == (3, 4, 1)


def test_the_first_final_failure_counts() -> None:
    desk = Desk()
    desk.fail(1, "DataError", "first")
    desk.fail(0, "RunError", "second")
    assert desk.failure() == Failure(1, "DataError", "first")


def test_an_error_is_final_when_it_comes_again_at_the_same_place() -> None:
    desk = Desk()
    desk.saved((1, 6))
    desk.trouble(1, "ValueError", "no")
    assert desk.failure() is None
    desk.saved((2, 12))  # the run got on in between: this is another error
    desk.trouble(1, "ValueError", "no")
    assert desk.failure() is None
    desk.trouble(0, "ValueError", "no")  # another worker
    assert desk.failure() is None
    desk.trouble(1, "ValueError", "no")
    assert desk.failure() == Failure(1, "ValueError", "no")


def test_messages_are_taken_once_and_in_order() -> None:
    desk = Desk()
    desk.tell("a", 1)
    desk.tell("b")
    assert desk.take() == [("a", 1), ("b",)]
    assert desk.take() == []


def test_the_first_reason_to_stop_counts() -> None:
    desk = Desk()
    assert desk.stop_asked() is None
    desk.ask_stop("SIGTERM")
    desk.ask_stop("SIGINT")
    assert desk.stop_asked() == "SIGTERM"


def test_silence_is_counted_from_the_last_sign_of_life() -> None:
    desk = Desk()
    desk.heard_at -= 60
    assert 60 <= desk.silent_s() < 61
    desk.pulse()
    assert desk.silent_s() < 1


class Gauges:
    """Remembers gauges as `ray.util.metrics.Gauge` would make them."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def __call__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> Any:
        assert tag_keys == ("run", "rank", "study", "trial")
        values = self.values

        class Gauge:
            def set(self, value: float, tags: dict[str, str]) -> None:
                values[name, *(tags[key] for key in tag_keys if tags[key])] = value

        return Gauge()


def test_gauges_carry_run_and_rank_and_no_nan() -> None:
    gauges = Gauges()
    shown = RayMetrics("plot", 1, "val/mAP_50", gauges)
    metrics = {"train/total_loss": 2.5, "val/total_loss": float("nan"), "val/mAP_50": 0.5, "time/images_per_s": 3.0}
    shown.show(Record(2, 12, {**metrics, "memory/rss_mb": 800.0, "lr/heads": 1e-3}))
    assert gauges.values == {
        ("cabruca_train_loss", "plot", "1"): 2.5,
        ("cabruca_monitored", "plot", "1"): 0.5,
        ("cabruca_images_per_s", "plot", "1"): 3.0,
        ("cabruca_memory_rss_mb", "plot", "1"): 800.0,
        ("cabruca_epoch", "plot", "1"): 2.0,
        ("cabruca_step", "plot", "1"): 12.0,
    }


def test_restarts_are_shown_and_end_with_the_run() -> None:
    gauges = Gauges()
    shown = RayMetrics("plot", 0, "val/mAP_50", gauges)
    shown.show_restarts(2)
    assert gauges.values == {("cabruca_restarts", "plot", "0"): 2.0}
    shown.end()
    assert math.isnan(gauges.values["cabruca_restarts", "plot", "0"])


def test_a_trial_s_gauges_carry_its_study_and_number_and_end_with_it() -> None:
    """The same process shows the next trial: what is left of the last must not look alive."""
    gauges = Gauges()
    for trial, value in ((3, 0.5), (4, 0.25)):
        place = StudyPlace("light_lr", "id", trial, {})
        watcher = GaugeWatcher(RayMetrics(f"trial_000{trial}", 0, "val/mAP_50", gauges, within=place))
        watcher.on_step(Record(0, 2, {"train/total_loss": 1.0}))
        watcher.on_epoch(Record(1, 6, {"val/mAP_50": value}))
        if trial == 3:
            watcher.on_end(None, None)
    alive = {key: value for key, value in gauges.values.items() if not math.isnan(value)}
    assert alive == {
        (f"cabruca_{name}", "trial_0004", "0", "light_lr", "4"): value
        for name, value in (("train_loss", 1.0), ("monitored", 0.25), ("epoch", 1.0), ("step", 6.0))
    }
    assert {key[-1] for key, value in gauges.values.items() if math.isnan(value)} == {"3"}


class Asked:
    """Lines of a reporter, counted."""

    def __init__(self, stop: str | None = None) -> None:
        self.stop = stop
        self.saves = 0
        self.published: list[dict[str, float]] = []

    def lines(self) -> Lines:
        return Lines(stop_asked=lambda: self.stop, saved=self._saved, publish=self.published.append)

    def _saved(self, place: tuple[int, int]) -> None:
        assert place == (1, 6)
        self.saves += 1


def save() -> Save:
    return Save(state=lambda: {"epoch": 1})


def test_rank_0_keeps_and_every_rank_publishes_finite_numbers() -> None:
    asked, kept = Asked(), MemoryReporter()
    reporter = WorkerReporter(Runtime.single(), kept, None, asked.lines())
    reporter.report(Record(1, 6, {"val/mAP_50": 0.5, "val/none": float("nan")}), save())
    assert asked.published == [{"epoch": 1, "step": 6, "val/mAP_50": 0.5}]
    assert [record.epoch for record in kept.records] == [1]
    assert asked.saves == 1


def test_a_driver_that_asks_stops_the_run_after_the_step() -> None:
    asked = Asked("SIGTERM")
    reporter = WorkerReporter(Runtime.single(), MemoryReporter(), None, asked.lines())
    assert reporter.heartbeat(Record(0, 1, {})) == "stop"
    assert WorkerReporter(Runtime.single(), None, None, asked.lines()).heartbeat(Record(0, 1, {})) == "go"


class Stops(MemoryReporter):
    def report(self, record: Record, save: Save) -> None:
        raise StopTraining("enough", "stopped")


def test_where_rank_0_is_told_to_stop_all_stop() -> None:
    reporter = WorkerReporter(Runtime.single(), Stops(), None, Asked().lines())
    with pytest.raises(StopTraining, match="enough"):
        reporter.report(Record(1, 6, {}), save())


def test_the_state_to_resume_is_handed_out_once() -> None:
    reporter = WorkerReporter(Runtime.single(), None, {"epoch": 3}, Asked().lines())
    assert reporter.resume() == {"epoch": 3}
    assert reporter.resume() is None
