"""What the journal of a study comes to: its trials, what each has reported, which is best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cabruca.config.study import Study

TrialPhase = Literal["waiting", "running", "finished", "stopped", "failed", "interrupted"]

ENDED: tuple[TrialPhase, ...] = ("finished", "stopped", "failed")
"""States that a trial does not leave again; an interrupted one is taken up by the next resume."""


@dataclass(frozen=True)
class Result:
    """What a trial reported after an epoch.

    Attributes:
        epoch: epochs completed. step: optimizer steps.
        metrics: finite numbers alone. elapsed_s: of the trial so far, over all its restarts. memory_mb: its peak, None
            where it was not measured.
    """

    epoch: int
    step: int
    metrics: Mapping[str, float]
    elapsed_s: float = 0.0
    memory_mb: float | None = None


@dataclass(frozen=True)
class Best:
    """A trial's value: its best epoch by the study's first metric, as its checkpoint_best is.

    Attributes:
        value: of the first metric. values: of all metrics of the study at that epoch.
    """

    value: float
    values: tuple[float, ...]
    epoch: int
    step: int


@dataclass
class TrialState:
    """One trial.

    Attributes:
        number: of its folder and in Optuna. params: dotted key -> value.
        results: one an epoch, in order; an epoch that was done again after a kill is there once, as it came last.
        epoch: epochs completed. elapsed_s: seconds of work, over all restarts.
        rung: epoch at which a scheduler stopped it, None where none did. by: that scheduler.
        reason: why it ended, for people (of a failed trial: the autopsy's first line).
        values: as its end told Optuna, None before.
        retry_of: the failed trial that this one repeats.
    """

    number: int
    params: dict[str, Any]
    state: TrialPhase = "waiting"
    results: list[Result] = field(default_factory=list)
    epoch: int = 0
    elapsed_s: float = 0.0
    rung: int | None = None
    by: str | None = None
    reason: str = ""
    values: tuple[float, ...] | None = None
    retry_of: int | None = None
    asked_at: float = 0.0
    ended_at: float | None = None
    memory_mb: float | None = None
    _best: tuple[object, Best | None] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ENDED

    def reopen(self, state: TrialPhase) -> None:
        """Taken up (again): what an earlier end said no longer holds, what was reported stays."""
        self.state, self.reason, self.values, self.ended_at = state, "", None, None

    def add(self, result: Result) -> None:
        """An epoch is reported; one that was reported before, and those after it, were done again."""
        while self.results and self.results[-1].epoch >= result.epoch:
            self.results.pop()
        self.results.append(result)
        self._best = None
        self.epoch, self.elapsed_s = result.epoch, max(self.elapsed_s, result.elapsed_s)
        if result.memory_mb is not None:
            self.memory_mb = max(self.memory_mb or 0.0, result.memory_mb)

    def best(self, study: Study) -> Best | None:
        """Its best epoch by the study's first metric; None where none has numbers for all metrics of the study.

        The first of equal epochs, as the train function keeps it.
        """
        asked = study.metrics, study.directions
        if self._best is None or self._best[0] != asked:  # kept: tables ask for it after every event
            self._best = asked, best_of(self.results, *asked)
        return self._best[1]


def best_of(results: Iterable[Result], metrics: tuple[str, ...], directions: tuple[str, ...]) -> Best | None:
    """The best of the results by the first metric, that has numbers for all of them."""
    sign = 1.0 if directions[0] == "maximize" else -1.0
    found: Best | None = None
    for result in results:
        if not all(name in result.metrics for name in metrics):
            continue
        values = tuple(result.metrics[name] for name in metrics)
        if found is None or sign * values[0] > sign * found.value:
            found = Best(values[0], values, result.epoch, result.step)
    return found


@dataclass
class StudyState:
    """All trials of a study by number; `notes`: lines for people, in order."""

    trials: dict[int, TrialState] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, *states: TrialPhase) -> int:
        """Trials in any of these states; without one, all."""
        return sum(not states or trial.state in states for trial in self.trials.values())

    def best(self, study: Study) -> TrialState | None:
        """The trial with the best value by the study's first metric, of those that have not failed."""
        first = min(self.trials.values(), key=lambda trial: _place(trial, study), default=None)
        return first if first is not None and first.state != "failed" and first.best(study) else None

    def ranked(self, study: Study) -> list[TrialState]:
        """All trials, best first: by value, of equal ones the earlier; then those without a value, then failed."""
        return sorted(self.trials.values(), key=lambda trial: _place(trial, study))

    def front(self, study: Study) -> list[TrialState]:
        """The Pareto front: trials that no other beats or equals in every metric while beating it in one.

        Of one metric: the best trials, one or several that are equal. In the order of `ranked`.
        """
        signs = [1.0 if direction == "maximize" else -1.0 for direction in study.directions]
        points = []
        for trial in self.ranked(study):
            best = trial.best(study)
            if best is not None and trial.state != "failed":
                points.append((trial, tuple(s * v for s, v in zip(signs, best.values, strict=True))))
        return [trial for trial, own in points if not any(_dominates(other, own) for _, other in points)]


def _place(trial: TrialState, study: Study) -> tuple[bool, bool, float, int]:
    """What trials are sorted by, best first."""
    best = trial.best(study)
    sign = -1.0 if study.directions[0] == "maximize" else 1.0
    return trial.state == "failed", best is None, sign * best.value if best else 0.0, trial.number


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))
