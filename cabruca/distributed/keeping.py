"""Checkpoints of a study's losers go as the study goes, and its folder stays within its disk budget."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from cabruca.distributed.folder_sizes import bytes_of, drop_checkpoints
from cabruca.distributed.folds import fold_dirs
from cabruca.distributed.study_books import StudyBooks
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_state import StudyState, TrialState
from cabruca.tracking.study_words import DISK_IS_FULL, size


class Keeper:
    """Keeps the checkpoints of the best trials that have ended; those of trials that may go on are not touched.

    Args:
        books: of the study. stop: called with a reason when the disk budget is used up.
    """

    def __init__(self, books: StudyBooks, stop: Callable[[str], None]) -> None:
        self._books, self._stop = books, stop
        self._budget = books.study.config.disk_budget_bytes
        self._kept: list[TrialState] = []
        self._sizes: dict[int, int] = {}
        self._largest = 0
        ended = [trial for trial in books.state.trials.values() if trial.ended]
        for trial in ended:
            self._take(trial)
        if ended and self._budget is not None:
            self._stay_within(self._budget)

    def __call__(self, number: int) -> None:
        """A trial has ended, or only this attempt at it."""
        trial = self._books.state.trials[number]
        if trial.ended:
            self._take(trial)
        if self._budget is not None:
            self._stay_within(self._budget)

    def _take(self, trial: TrialState) -> None:
        if self._budget is not None:  # with all its checkpoints: so much room the next one needs
            self._measure(trial.number)
        self._keep(trial)
        if self._budget is not None:
            self._measure(trial.number)

    def _measure(self, number: int) -> int:
        self._sizes[number] = bytes_of(self._run_dir(number).path)
        self._largest = max(self._largest, self._sizes[number])
        return self._sizes[number]

    def _keep(self, trial: TrialState) -> None:
        if trial.state == "failed" or trial.best(self._books.study) is None:
            self._drop(trial.number)
            return
        self._kept = self._ranked([*self._kept, trial])
        # of those that are kept: what another trial beats is beaten by a kept one, too
        kept = StudyState({t.number: t for t in self._kept})
        front = {t.number for t in kept.front(self._books.study)} if self._many else set()
        most = self._books.study.config.keep_checkpoints
        if self._books.population is not None:  # others may take over their weights
            most = self._books.study.config.num_trials
        losers = [loser for loser in self._kept[most:] if loser.number not in front]
        for loser in losers:
            self._kept.remove(loser)
            self._drop(loser.number)

    @property
    def _many(self) -> bool:
        return len(self._books.study.metrics) > 1

    def _ranked(self, trials: list[TrialState]) -> list[TrialState]:
        study = self._books.study
        sign = -1.0 if study.directions[0] == "maximize" else 1.0

        def key(trial: TrialState) -> tuple[float, int]:
            best = trial.best(study)
            return (sign * best.value if best is not None else float("inf"), trial.number)

        return sorted(trials, key=key)

    def _stay_within(self, budget: int) -> None:
        """Give up more of the kept checkpoints, the worst first, never the best; where that is not enough, stop."""
        live = [self._measure(trial.number) for trial in self._books.state.trials.values() if not trial.ended]
        others, more = self._others(), self._expected(live)
        while others + sum(self._sizes.values()) + more > budget and len(self._kept) > 1:
            loser = self._kept.pop()
            self._drop(loser.number)
            self._measure(loser.number)
        used = others + sum(self._sizes.values())
        if used + more > budget:
            self._stop(f"{DISK_IS_FULL} ({size(used)} of {size(budget)}; what is to run takes {size(more)} more)")

    def _expected(self, live: list[int]) -> int:
        """Bytes that trials under way, and those that take free places beside them, may still come to; as the largest
        before them."""
        config = self._books.study.config
        asked = sum(trial.retry_of is None for trial in self._books.state.trials.values())
        places = min(config.max_concurrent_trials, len(live) + max(0, config.num_trials - asked))
        growth = sum(max(0, self._largest - taken) for taken in live)
        return growth + self._largest * max(0, places - len(live))

    def _others(self) -> int:
        """Bytes of the study's folder beside its trials: Optuna's file, the journal, the repetitions."""
        folder = self._books.study_dir
        total = 0
        for child in folder.path.iterdir():
            if child.name != folder.trials.name:
                with contextlib.suppress(OSError):
                    total += bytes_of(child) if child.is_dir() else child.stat().st_size
        return total

    def _drop(self, number: int) -> None:
        own = self._run_dir(number)
        for run_dir in (own, *fold_dirs(own)):
            drop_checkpoints(run_dir)
        self._books.drop_there(number)

    def _run_dir(self, number: int) -> RunDir:
        return self._books.study_dir.trial_dir(number)
