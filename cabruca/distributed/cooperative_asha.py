"""A scheduler of Ray Tune that stops trials by asking them to.

Ray's own answer STOP kills the trial's process where it stands; of a trial with workers it leaves their resources
taken. Here the scheduler inside (ASHA, HyperBand, median) decides as ever, the decision is written down and left at the
desk, and Tune is told CONTINUE: the trial asks the desk right after its report, saves, and returns.

The scheduler inside is fed with stand-ins named after the trial's number, never with Ray's own trials. So the results
in the journal can be fed to a fresh one, in the same order, and it comes to stand where the killed one stood.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from cabruca.config.study import Study
from cabruca.distributed.population import Exchange
from cabruca.distributed.study_books import StudyBooks, known_epoch
from cabruca.tracking.study_state import Result

VALUE = "value"
"""Name under which the scheduler inside finds the study's metric."""


@dataclass(frozen=True)
class StandIn:
    """What the scheduler inside takes for a trial."""

    trial_id: str


class _Median(MedianStoppingRule):
    """Lets a trial go on where there are too few to compare it with, whoever waits."""

    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
        return str(TrialScheduler.CONTINUE)


def make_inner(study: Study) -> TrialScheduler | None:
    """ASHA, asynchronous HyperBand or the median rule on our own clock, the epoch; None: all trials live."""
    settings = study.config.scheduler
    common: dict[str, Any] = {
        "time_attr": "epoch",
        "metric": VALUE,
        "mode": "max" if study.directions[0] == "maximize" else "min",
    }
    grace = min(settings.grace_period, study.max_epochs)
    if settings.type in ("asha", "hyperband"):
        own: dict[str, Any] = {
            "max_t": study.max_epochs,
            "grace_period": grace,
            "reduction_factor": settings.reduction_factor,
        }
        brackets = 1
        if settings.type == "hyperband":  # one bracket for every rung to begin with; the last stops nobody
            brackets = 1 + int(math.log(study.max_epochs / grace, settings.reduction_factor) + 1e-9)
        return ASHAScheduler(**common, **own, brackets=brackets, stop_last_trials=False)
    if settings.type == "median":
        return _Median(**common, grace_period=grace, min_samples_required=settings.min_samples)
    return None


@contextmanager
def _drawn_by(seed: int, number: int) -> Iterator[None]:
    """The bracket that a trial falls into is a function of the study's seed and the trial's number."""
    before = np.random.get_state()
    np.random.seed([seed % 2**32, number])
    try:
        yield
    finally:
        np.random.set_state(before)


class Cooperative(TrialScheduler):
    """The scheduler of a study."""

    _supports_buffered_results = False

    def __init__(self, books: StudyBooks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._books, self._study = books, books.study
        self._inner = make_inner(self._study)
        self._added: dict[int, StandIn] = {}
        self._replay()

    def __reduce__(self) -> Any:
        return FIFOScheduler, ()  # Tune's own snapshot holds one; nothing is resumed from it

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def _replay(self) -> None:
        """Feed the journal's results, in the order in which they came.

        A decision that a kill kept out of the journal is written down: the scheduler inside makes it once. No trial
        goes on before it is decided on, so it is a decision on a trial's last result.
        """
        lost: list[tuple[int, int]] = []
        for number, result in self._books.replay():
            stops = self._decide(number, result)
            self._exchange(number, result)
            trial = self._books.state.trials[number]
            if stops and trial.rung is None and not trial.ended and result.epoch == known_epoch(trial):
                lost.append((number, result.epoch))
        for number, epoch in lost:
            self._books.decided(number, epoch, self._rung(epoch), self._study.config.scheduler.type, tell=False)

    def _decide(self, number: int, result: Result) -> bool:
        """Whether the scheduler inside stops the trial here."""
        name = self._study.metrics[0]
        if name not in result.metrics or self._inner is None:
            return False
        if number not in self._added:
            self._added[number] = StandIn(f"trial_{number:04d}")
            with _drawn_by(self._study.config.sampler.seed, number):
                self._inner.on_trial_add(None, self._added[number])  # type: ignore[arg-type]
        row = {"epoch": result.epoch, VALUE: result.metrics[name]}
        decision = self._inner.on_trial_result(None, self._added[number], row)  # type: ignore[arg-type]
        return bool(decision == TrialScheduler.STOP) and result.epoch < self._study.max_epochs

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """The scheduler inside hears of a trial with its first result."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        number = int(trial.config["trial"])
        if "epoch" in result and self._books.result(number, result):
            newest = self._books.state.trials[number].results[-1]
            if self._decide(number, newest):
                self._books.decided(number, newest.epoch, self._rung(newest.epoch), self._study.config.scheduler.type)
            exchange = self._exchange(number, newest)
            if exchange is not None:
                self._books.exchanged(number, exchange)
        return TrialScheduler.CONTINUE

    def _exchange(self, number: int, result: Result) -> Exchange | None:
        """What the trial takes over here, where trials do (pbt)."""
        population = self._books.population
        if population is None:
            return None
        asked = {n: trial.params for n, trial in self._books.state.trials.items()}
        return population.decide(number, result, asked)

    def _rung(self, epoch: int) -> int:
        """The rung of ASHA that an epoch stands on; of the median rule, the epoch itself."""
        if not isinstance(self._inner, ASHAScheduler):
            return epoch
        settings = self._study.config.scheduler
        rung = float(settings.grace_period)
        while rung * settings.reduction_factor <= epoch:
            rung *= settings.reduction_factor
        return int(rung)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial's process died; Tune starts it again, or gives it up."""
        self._books.died(int(trial.config["trial"]))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its last result has been decided on."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """It never ran."""

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Nobody in particular: Tune starts those that wait in their order."""

    def debug_string(self) -> str:
        return "" if self._inner is None else f"cooperative {self._inner.debug_string()}"
