"""A study of which every trial fails: it stops early, and it does not end as if all were well."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from cabruca.tracking.study_state import StudyState
from cabruca.tracking.study_words import ALL_FAIL

IN_A_ROW = 5
"""Failures for one reason, with no trial that did better, after which no further trial is asked."""

_NUMBER = re.compile(r"\d[\d.e+-]*")


class FailureWatch:
    """Stops a study that fails from its beginning; of a session that goes on, the failures of that session count.

    Args:
        state: of the study. stop: called with the reason.
    """

    def __init__(self, state: StudyState, stop: Callable[[str], None]) -> None:
        self._state, self._stop = state, stop
        self._reasons: list[str] = []

    def __call__(self, number: int) -> None:
        """A trial has ended, or only this attempt at it."""
        if self._state.trials[number].state == "failed":
            self._reasons.append(_kind(self._state.trials[number].reason))
        alike = len(self._reasons) >= IN_A_ROW and len(set(self._reasons[-IN_A_ROW:])) == 1
        if alike and not self._state.count("finished", "stopped"):
            self._stop(f"{ALL_FAIL}: {self._state.trials[number].reason}")


def all_failed(state: StudyState) -> str | None:
    """The commonest reason, where trials failed and none of the others has ended; else None."""
    failed = [trial for trial in state.trials.values() if trial.state == "failed"]
    if not failed or state.count("finished", "stopped"):
        return None
    kinds = Counter(_kind(trial.reason) for trial in failed)
    kind, count = kinds.most_common(1)[0]
    reason = next(trial.reason for trial in failed if _kind(trial.reason) == kind)
    return f"{ALL_FAIL}, {count} of {len(failed)} so: {reason}"


def _kind(reason: str) -> str:
    """The reason without its numbers: a batch of 7 and a batch of 9 are too large for one reason."""
    return _NUMBER.sub("#", reason)
