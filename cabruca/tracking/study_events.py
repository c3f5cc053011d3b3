"""results.jsonl, the journal of a study: what is not in it has not happened.

The driver appends each event, flushed to disk, before anything is decided on it; a study that goes on reads the file
again from its first line. One JSON object a line, each with `event`, `time` (seconds since 1970) and, but for a note,
`trial` (its number):

============  ===========================================================================================
asked         params {dotted key: value}, retry_of (number of the failed trial that it repeats, or absent)
started       a process has taken the trial up (again)
result        epoch, step, metrics {name: finite number}, elapsed_s, memory_mb
decided       epoch, decision (stop), rung (epoch), by (the scheduler)
ended         state (finished, stopped, failed, interrupted), epoch, values [number ..] or null, reason
note          text
============  ===========================================================================================
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cabruca.errors import RunError
from cabruca.tracking.files import to_json
from cabruca.tracking.study_state import Result, StudyState, TrialState

__all__ = ["Event", "Journal", "Result", "StudyState", "TrialState", "apply", "events", "read"]

Event = dict[str, Any]

KINDS = ("asked", "started", "result", "decided", "ended", "note")


class Journal:
    """The driver's end of the file: reads what is there, then appends. `state` is what all of it comes to.

    Raises:
        RunError: a line in the middle is no event, or the file cannot be opened.
    """

    def __init__(self, path: Path) -> None: ...

    def append(self, event: Mapping[str, Any]) -> Event:
        """Write the event, with its time, durably; returns it as written. Numbers of `metrics` that are not finite
        are left out.

        Raises:
            RunError: the disk refused; the file is as it was.
        """
        raise NotImplementedError

    def close(self) -> None: ...


def read(path: Path) -> StudyState:
    """What the journal comes to, also while a driver is writing it; nothing where there is no file.

    Raises:
        RunError: a line in the middle is no event.
    """
    raise NotImplementedError


def events(path: Path) -> Iterator[Event]:
    """Every whole event in order.

    Raises:
        RunError: a line in the middle is no event.
    """
    raise NotImplementedError


def apply(state: StudyState, event: Mapping[str, Any]) -> None:
    """Let one event happen to `state`."""
