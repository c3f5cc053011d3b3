"""The Reporter of a trial: the run's own, and after each epoch the study is told and may stop the trial.

The run's folder comes first: what the study knows of is saved. An epoch that was saved and not told, because the
process was killed in between, is told by the next one before it trains (`trial.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from cabruca.errors import CabrucaError
from cabruca.train.protocols import Record, Reporter, Save, State, StopTraining, TrainResult, memory_of

POLL_S = 1.0
"""Seconds between looks at whether the driver asks every trial to leave."""

PAUSED = "the study pauses this trial"
TAKES_OVER = "the trial takes over another's weights"


class NotANumber(CabrucaError):
    """A metric that the study compares its trials by is not finite."""


class Line(Protocol):
    """How a trial talks to its study."""

    def tell(self, result: Mapping[str, Any]) -> None:
        """An epoch is done and saved. Returns when the study has decided on it.

        Raises:
            SystemExit: Ray Tune takes the process away from this trial.
        """
        ...

    def stop_asked(self) -> str | None:
        """Why the study stops this trial, or None."""
        ...

    def take_over_asked(self, epoch: int) -> Any:
        """Whose weights the trial takes over after this epoch, or None."""
        ...

    def leave_asked(self) -> str | None:
        """Why all trials save and end, or None."""
        ...


class TrialReporter:
    """A `Reporter` around another.

    Args:
        inner: keeps the run's folder. line: to the study.
        metrics: what the study compares its trials by. epochs: of the whole trial.
        elapsed_s: seconds of what was done of the trial before. population: trials take over weights of others.
    """

    def __init__(
        self,
        inner: Reporter,
        line: Line,
        metrics: Sequence[str],
        *,
        epochs: int,
        elapsed_s: float = 0.0,
        population: bool = False,
    ) -> None:
        self._inner, self._line = inner, line
        self._metrics, self._epochs = tuple(metrics), epochs
        self._began = time.monotonic() - elapsed_s
        self._population = population
        self._looked_at = 0.0

    def resume(self) -> State | None:
        return self._inner.resume()

    def heartbeat(self, record: Record) -> Literal["go", "save", "stop"]:
        answer = self._inner.heartbeat(record)
        return "stop" if self._is_told_to_leave() else answer

    def save(self, record: Record, save: Save) -> None:
        self._inner.save(record, save)

    def report(self, record: Record, save: Save) -> None:
        self._inner.report(record, save)
        refuse_not_a_number(record.metrics, self._metrics, record.epoch)
        result = result_of(record.epoch, record.step, record.metrics, time.monotonic() - self._began)
        try:
            self._line.tell(result)
        except SystemExit:
            raise StopTraining(PAUSED, "interrupted") from None
        if record.epoch >= self._epochs:
            return
        reason = self._line.stop_asked()
        if reason is not None:
            raise StopTraining(reason)
        if self._population and self._line.take_over_asked(record.epoch) is not None:
            raise StopTraining(TAKES_OVER, "interrupted")

    def finish(self, result: TrainResult | None, error: BaseException | None) -> None:
        self._inner.finish(result, error)

    def _is_told_to_leave(self) -> bool:
        now = time.monotonic()
        if now - self._looked_at < POLL_S:
            return False
        self._looked_at = now
        return self._line.leave_asked() is not None


def refuse_not_a_number(metrics: Mapping[str, float], wanted: Sequence[str], epoch: int) -> None:
    """Look at the metrics that decide, where they were measured.

    Raises:
        NotANumber: one is NaN or infinite.
    """
    for name in wanted:
        if name in metrics and not math.isfinite(metrics[name]):
            raise NotANumber(
                f"{name} is {metrics[name]} after epoch {epoch}: a trial without it cannot be compared; look at the "
                "trial's metrics.jsonl, or let the study compare by another metric"
            )


def result_of(epoch: int, step: int, metrics: Mapping[str, float], elapsed_s: float) -> dict[str, Any]:
    """An epoch as it travels to the study: finite numbers alone, the metrics under `m`."""
    numbers = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return {
        "epoch": int(epoch),
        "step": int(step),
        "elapsed_s": round(float(elapsed_s), 3),
        "memory_mb": memory_of(numbers) or 0.0,
        "m": numbers,
    }
