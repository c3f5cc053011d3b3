"""The Reporter of a worker: rank 0 keeps the run's folder, all ranks meet after each report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from cabruca.runtime import Runtime
from cabruca.train.protocols import Record, Reporter, Save, State, StopTraining, TrainResult

POLL_S = 1.0
"""Seconds between looks at whether the driver asks to stop."""


class Show(Protocol):
    """Publishes a record's numbers, on every rank."""

    def show(self, record: Record) -> None: ...


@dataclass(frozen=True)
class Lines:
    """How a worker's reporter talks to the world.

    Attributes:
        stop_asked: asks the driver's desk; called by rank 0 alone.
        saved: called by rank 0 after each checkpoint, with its epoch and step.
        publish: `ray.train.report`, a barrier over all ranks.
    """

    stop_asked: Callable[[], str | None]
    saved: Callable[[tuple[int, int]], None]
    publish: Callable[[dict[str, Any]], None]


class WorkerReporter:
    """Reporter inside a Ray Train worker.

    Args:
        runtime: this rank.
        local: writes the run's folder; on rank 0 alone.
        state: what to resume, the same on every rank.
        lines: see `Lines`. gauges: publishes numbers of this rank, or None.
    """

    def __init__(
        self, runtime: Runtime, local: Reporter | None, state: State | None, lines: Lines, gauges: Show | None = None
    ) -> None:
        self._runtime, self._local, self._state = runtime, local, state
        self._lines, self._gauges = lines, gauges
        self._looked_at = 0.0

    def resume(self) -> State | None:
        state, self._state = self._state, None  # not held in memory beside the model for the whole run
        return state if self._local is None else self._local.resume()

    def heartbeat(self, record: Record) -> Literal["go", "save", "stop"]:
        if record.metrics:
            self._show(record)
        if self._local is None:
            return "go"
        answer = self._local.heartbeat(record)
        return "stop" if self._is_told_to_stop() else answer

    def save(self, record: Record, save: Save) -> None:
        self._together(lambda local: local.save(record, save), record)

    def report(self, record: Record, save: Save) -> None:
        self._show(record)
        self._together(lambda local: local.report(record, save), record)
        numbers = {k: float(v) for k, v in record.metrics.items() if math.isfinite(v)}
        self._lines.publish({"epoch": record.epoch, "step": record.step, **numbers})

    def finish(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._local is not None:
            self._local.finish(result, error)

    def _show(self, record: Record) -> None:
        if self._gauges is not None:
            self._gauges.show(record)

    def _is_told_to_stop(self) -> bool:
        now = time.monotonic()
        if now - self._looked_at < POLL_S:
            return False
        self._looked_at = now
        return self._lines.stop_asked() is not None

    def _together(self, act: Callable[[Reporter], None], record: Record) -> None:
        """Rank 0 acts; where it is told to stop, all ranks stop."""
        stop: StopTraining | None = None
        if self._local is not None:
            try:
                act(self._local)
            except StopTraining as told:
                stop = told
            self._lines.saved((record.epoch, record.step))
        told_all = self._runtime.gather(None if stop is None else (stop.reason, stop.state))[0]
        if told_all is not None:
            raise StopTraining(*told_all)
