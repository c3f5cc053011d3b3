"""The conformance suite of the Reporter protocol: a training run against every implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from line_task import LineTask, line_config

from cabruca.runtime import Runtime
from cabruca.train.loop import train
from cabruca.train.protocols import Record, Reporter, Save, State, TrainResult

MakeReporter = Callable[[State | None], Reporter]
"""A fresh reporter that resumes from the given state (None: begins), each with a place of its own."""

SavedState = Callable[[Reporter], State]
"""What a reporter would hand to `resume` next time: its newest checkpoint."""


def check_reporter(make: MakeReporter, saved: SavedState) -> None:
    """Run every check on reporters from `make`.

    Raises:
        AssertionError: a rule of the protocol is broken; the message names it.
    """
    first = make(None)
    assert isinstance(first, Reporter), "has every method of the protocol"
    assert first.resume() is None, "begins without a state"
    first.finish(None, RuntimeError("given up before it began"))
    _check_run(make, saved)
    _check_resume(make, saved)
    _check_lazy(make)
    _check_failure(make)


def _check_run(make: MakeReporter, saved: SavedState) -> None:
    reporter = make(None)
    result = _train(reporter)
    assert (result.state, result.epochs) == ("finished", 4), "a reporter that is asked nothing lets the run finish"
    state = saved(reporter)
    assert state["epoch"] == 4, "the last epoch's state is kept"
    assert set(state["model"]) == {"slope", "offset", "spare", "met_large"}, "weights keep their plain names"


def _check_resume(make: MakeReporter, saved: SavedState) -> None:
    whole, half = make(None), make(None)
    _train(whole)
    _train(half, num_epochs=2)
    rest = make(saved(half))
    task = LineTask(dropout=0.2)
    assert _train(rest, task=task).epochs == 4
    assert [epoch for epoch, _ in task.seen] == [2, 3], "a resumed run goes on where it was"
    ours, theirs = saved(rest), saved(whole)
    for name, weight in theirs["model"].items():
        assert torch.equal(ours["model"][name], weight), f"a resumed run ends bitwise the same ({name})"
    assert ours["best"] == theirs["best"], "the best is kept through a resume"


def _check_lazy(make: MakeReporter) -> None:
    """States are large: built at most once a save."""
    built: list[int] = []
    reporter = make(None)
    reporter.resume()
    state = _any_state()

    def build() -> State:
        built.append(1)
        return dict(state)

    record = Record(epoch=1, step=4, metrics={"val/total_loss": 1.0, "val/undefined": float("nan")})
    assert reporter.heartbeat(record) in ("go", "save", "stop"), "heartbeat answers go, save or stop"
    assert not built, "a heartbeat builds no state"
    reporter.save(record, Save(build))
    reporter.report(record, Save(build, best=True, numbered=True))
    assert len(built) <= 2, "a state is built at most once a save"
    reporter.finish(TrainResult("finished", 1, 4, 1.0, 1, record.metrics, "done"), None)


def _check_failure(make: MakeReporter) -> None:
    class Failing(LineTask):
        def validate(self, *_: Any, **__: Any) -> Any:
            raise ValueError("broken picture")

    try:
        _train(make(None), task=Failing())
    except ValueError:
        return
    raise AssertionError("an error of the run is not swallowed")


def _any_state() -> State:
    return {"model": {"slope": torch.ones(1)}, "epoch": 1, "step": 4, "stage": 0, "config": {}, "best": {"value": 1.0}}


def _train(reporter: Reporter, num_epochs: int = 4, task: LineTask | None = None) -> TrainResult:
    config = line_config(training={"num_epochs": num_epochs, "save_frequency": 2, "log_interval": 1})
    return train(config, task or LineTask(dropout=0.2), runtime=Runtime.single(), reporter=reporter)
