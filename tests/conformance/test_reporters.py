"""Every Reporter passes the suite; and the suite notices a Reporter that breaks a rule."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from check_reporter import check_reporter
from file_reporter import FileReporter
from memory_reporter import MemoryReporter

from cabruca.train import checkpoint
from cabruca.train.protocols import Record, Save, State


def test_memory_reporter() -> None:
    check_reporter(MemoryReporter, lambda reporter: reporter.state)  # type: ignore[attr-defined]


def test_file_reporter(tmp_path: Path) -> None:
    numbers = itertools.count()

    def make(state: State | None) -> FileReporter:
        folder = tmp_path / str(next(numbers))
        if state is not None:
            checkpoint.write(folder / "checkpoint_latest.pth", state, metric=None)
        return FileReporter(folder)

    check_reporter(make, lambda reporter: checkpoint.read(reporter.folder / "checkpoint_latest.pth"))  # type: ignore[attr-defined]


class Eager(MemoryReporter):
    def report(self, record: Record, save: Save) -> None:
        save.state()
        super().report(record, save)


class Forgetful(MemoryReporter):
    def resume(self) -> State | None:
        return None


class KeepsTheFirst(MemoryReporter):
    @property
    def state(self) -> State:
        return self.saves[0][1]


class Chatty(MemoryReporter):
    def heartbeat(self, record: Record) -> Any:
        return super().heartbeat(record) == "go"


@pytest.mark.parametrize(
    ("reporter", "rule"),
    [
        (Eager, "at most once a save"),
        (Forgetful, "goes on where it was"),
        (KeepsTheFirst, "the last epoch"),
        (Chatty, "go, save or stop"),
    ],
)
def test_the_suite_notices(reporter: type[MemoryReporter], rule: str) -> None:
    with pytest.raises(AssertionError, match=rule):
        check_reporter(reporter, lambda made: made.state)  # type: ignore[attr-defined]
