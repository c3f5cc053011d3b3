"""Run the train function on the line fit, alone, and watch it."""

from __future__ import annotations

from typing import Any

from line_task import LineTask, line_config
from memory_reporter import MemoryReporter

from cabruca.runtime import Runtime
from cabruca.train.loop import train
from cabruca.train.protocols import BaseCallback, Record, RunInfo, TrainResult


def go(
    task: LineTask | None = None, reporter: MemoryReporter | None = None, callbacks: Any = (), **sections: Any
) -> Any:
    """Train alone; `(result, reporter)`."""
    reporter = reporter or MemoryReporter()
    config = line_config(**sections)
    result = train(config, task or LineTask(), runtime=Runtime.single(), reporter=reporter, callbacks=callbacks)
    return result, reporter


class Watcher(BaseCallback):
    """Writes down what it sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def on_start(self, info: RunInfo) -> None:
        self.seen.append(("start", info))

    def on_step(self, record: Record) -> None:
        self.seen.append(("step", record))

    def on_validation(self, record: Record) -> None:
        self.seen.append(("validation", record))

    def on_epoch(self, record: Record) -> None:
        self.seen.append(("epoch", record))

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        self.seen.append(("end", result or error))
