"""The books, scheduler and search of a study without a cluster: the desk is a plain object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import ray
from study_line import folder_of

from cabruca.config.study import Study
from cabruca.distributed.cooperative_asha import Cooperative
from cabruca.distributed.search import StudySearch
from cabruca.distributed.study_books import StudyBooks
from cabruca.distributed.study_desk import StudyDesk
from cabruca.distributed.trial_ending import Ending, last_words
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal


class PlainDesk:
    """A desk whose methods answer at once."""

    def __init__(self) -> None:
        self.desk = StudyDesk()

    def __getattr__(self, name: str) -> Any:
        return _Method(getattr(self.desk, name))


class _Method:
    def __init__(self, call: Any) -> None:
        self.remote = call


class _Places:
    def place(self, number: int, params: Mapping[str, Any]) -> Any:
        return None


class _RayTrial:
    """What the scheduler looks at of Ray's trial."""

    def __init__(self, number: int) -> None:
        self.config = {"trial": number}


class Session:
    """One driver: what it would do with the trials, and what it is told."""

    def __init__(self, study: Study, journal: Journal, desk: Any = None) -> None:
        self.desk = PlainDesk() if desk is None else desk
        self.books = StudyBooks(study, StudyDir.of(study), journal, [], desk=self.desk, places=_Places())
        self._begun = 0
        self.scheduler = Cooperative(self.books)
        self.search = StudySearch(self.books, lambda number: None, lambda: False)

    def begin(self) -> int | None:
        """The next trial, or None."""
        self._begun += 1
        given = self.search.suggest(f"t{self._begun}")
        return int(given["trial"]) if isinstance(given, dict) else None

    def report(self, number: int, epoch: int, value: float) -> str | None:
        """An epoch of a trial is done; why it stops, or None."""
        flat = {"epoch": epoch, "step": epoch, "elapsed_s": 1.0 * epoch, "memory_mb": 1.0, "m/val/mAP_50": value}
        self.scheduler.on_trial_result(None, _RayTrial(number), flat)
        self.search.on_trial_result(self._name_of(number), flat)
        return self.desk.desk.stop_of(number)

    def end(self, number: int, state: str, epoch: int, reason: str = "") -> None:
        self.search.on_trial_complete(self._name_of(number), last_words(number, Ending(state, epoch, reason)))

    def _name_of(self, number: int) -> str:
        return next(key for key, live in self.search._live.items() if live == number)


@contextmanager
def session(study: Study, monkeypatch: pytest.MonkeyPatch, desk: Any = None) -> Iterator[Session]:
    """A driver of the study in its folder, new or left by an earlier one."""
    monkeypatch.setattr(ray, "get", lambda answer, **_: answer)
    with Journal(folder_of(study).results) as journal:
        yield Session(study, journal, desk)
