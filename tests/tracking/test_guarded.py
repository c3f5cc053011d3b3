"""A tracker that is dead, slow or wrong: one warning, and training does not notice."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from cabruca.tracking.guarded import Guarded
from cabruca.train.protocols import BaseCallback, Record, TrainResult

RESULT = TrainResult("finished", 1, 1, None, None, {}, "done")


class Recorder(BaseCallback):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.ended = False
        self.threads: set[str] = set()

    def on_step(self, record: Record) -> None:
        self.threads.add(threading.current_thread().name)
        self.steps.append(record.step)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        self.ended = True


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]


def test_hooks_arrive_in_order_in_one_other_thread(caplog: pytest.LogCaptureFixture) -> None:
    seen = Recorder()
    guarded = Guarded("fine", lambda: seen)
    for step in range(50):
        guarded.on_step(Record(0, step, {}))
    guarded.on_end(RESULT, None)
    assert seen.steps == list(range(50))
    assert seen.threads == {"cabruca-fine"}
    assert seen.ended
    assert _warnings(caplog) == []


def test_one_that_raises_is_told_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def on_step(self, record: Record) -> None:
            super().on_step(record)
            raise ValueError("no such server\nand a long story")

    seen = Broken()
    guarded = Guarded("broken", lambda: seen)
    for step in range(20):
        guarded.on_step(Record(0, step, {}))
    guarded.on_end(RESULT, None)
    guarded._thread.join(5)
    assert seen.steps == [0]
    (warning,) = _warnings(caplog)
    assert warning.startswith("tracker broken is switched off for this run (no such server);")


def test_one_that_cannot_be_made_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> BaseCallback:
        raise ImportError("No module named 'mlflow'")

    guarded = Guarded("absent", make)
    guarded.on_step(Record(0, 1, {}))
    guarded.on_end(RESULT, None)
    (warning,) = _warnings(caplog)
    assert "No module named 'mlflow'" in warning


def test_a_slow_one_loses_records_but_does_not_slow_training(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Recorder):
        def on_step(self, record: Record) -> None:
            time.sleep(0.05)
            super().on_step(record)

    seen = Slow()
    guarded = Guarded("slow", lambda: seen, capacity=3)
    began = time.monotonic()
    for step in range(200):
        guarded.on_step(Record(0, step, {}))
    assert time.monotonic() - began < 1.0  # 200 x 0.05 s would be 10 s
    guarded.on_end(RESULT, None)
    assert seen.ended
    assert 1 <= len(seen.steps) <= 10
    assert len(_warnings(caplog)) == 1


def test_one_that_hangs_at_the_end_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    class Hanging(Recorder):
        def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
            release.wait(10)

    guarded = Guarded("hanging", Hanging, patience_s=0.2)
    began = time.monotonic()
    guarded.on_end(RESULT, None)
    assert time.monotonic() - began < 2
    assert len(_warnings(caplog)) == 1
    release.set()


class Slow(BaseCallback):
    """Its hooks take a second each."""

    def on_step(self, record: Record) -> None:
        time.sleep(1.0)


def _end_of_a_full_queue(guarded: Guarded, result: TrainResult) -> float:
    for step in range(4):
        guarded.on_step(Record(0, step, {}))
        time.sleep(0.02)
    began = time.monotonic()
    guarded.on_end(result, None)
    return time.monotonic() - began


def test_one_patience_for_all_that_waits_at_the_end() -> None:
    """A full queue, then the mark of its end, then the thread: not three times as long."""
    assert _end_of_a_full_queue(Guarded("slow", Slow, capacity=1, patience_s=0.4), RESULT) < 0.7


def test_an_interrupted_run_has_less_patience(caplog: pytest.LogCaptureFixture) -> None:
    guarded = Guarded("slow", Slow, capacity=1, patience_s=60.0, hurry_s=0.3)
    assert _end_of_a_full_queue(guarded, replace(RESULT, state="interrupted")) < 0.6
    assert len(_warnings(caplog)) == 1
