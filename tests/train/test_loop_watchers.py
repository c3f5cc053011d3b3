"""Who watches a training sees all of it, in order, and cannot stop it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from line_run import Watcher, go
from line_task import LineTask
from memory_reporter import MemoryReporter

from cabruca.train.protocols import BaseCallback, Record


def test_hooks_come_in_order_and_see_complete_records() -> None:
    watcher = Watcher()
    result, reporter = go(callbacks=[watcher], training={"num_epochs": 2}, validation={"frequency": 2})
    names = [name for name, _ in watcher.seen]
    assert names == ["start", *["step"] * 4, "epoch", *["step"] * 4, "validation", "epoch", "end"]
    info = watcher.seen[0][1]
    assert (info.num_epochs, info.steps_per_epoch, info.batch_size, info.effective_batch) == (2, 4, 4, 4)
    assert (info.device, info.precision, info.parameters) == ("cpu", "fp32", 3)
    assert [record for name, record in watcher.seen if name == "epoch"] == reporter.records
    assert watcher.seen[-1] == ("end", result)


def test_secrets_do_not_reach_those_who_watch() -> None:
    watcher = Watcher()
    go(callbacks=[watcher], tracking={"mlflow_uri": "https://me:hunter2@example.org"})
    assert "hunter2" not in str(watcher.seen[0][1].config)


def test_who_watches_cannot_stop_training(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(BaseCallback):
        def on_step(self, record: Record) -> None:
            raise RuntimeError("server is down")

        on_epoch = on_validation = on_step

    watcher = Watcher()
    with caplog.at_level(logging.WARNING, "cabruca"):
        result, reporter = go(callbacks=[Broken(), watcher])
    assert result.state == "finished"
    assert len(watcher.seen) == len(reporter.steps) + 2 * len(reporter.records) + 2
    assert [r.getMessage() for r in caplog.records] == [
        "Broken failed and training goes on without what it shows (RuntimeError: server is down)"
    ]


@pytest.mark.parametrize("error", [ValueError("broken picture"), KeyboardInterrupt()])
def test_an_error_reaches_reporter_and_watchers_and_the_caller(error: BaseException) -> None:
    class Failing(LineTask):
        def validate(self, *_: Any, **__: Any) -> Any:
            raise error

    watcher, reporter = Watcher(), MemoryReporter()
    with pytest.raises(type(error)):
        go(Failing(), reporter, [watcher])
    assert reporter.finished == [(None, error)]
    assert watcher.seen[-1] == ("end", error)
