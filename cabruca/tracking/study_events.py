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
import logging
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

_log = logging.getLogger("cabruca.tracking")

Event = dict[str, Any]


class Journal:
    """The driver's end of the file: reads what is there, then appends.

    What a kill left of a last line is cut off, as it was never acted on. One writer at a time: hold `StudyDir.lock`.

    Attributes:
        state: what all events so far come to; `append` carries it on.

    Raises:
        RunError: a line in the middle is no event, or the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = StudyState()
        whole = 0
        for event, end in _lines(path):
            apply(self.state, event)
            whole = end
        try:
            self._file = path.open("ab", buffering=0)
            size = self._file.seek(0, os.SEEK_END)
            if size > whole:
                _log.warning("%s: a last line of %d bytes was torn by a kill and is cut off", path, size - whole)
                self._file.truncate(whole)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _refused(path, error) from error
        self._end = whole

    def append(self, event: Mapping[str, Any]) -> Event:
        """Write the event durably, with its time, and let it happen to `state`; returns it as written.

        Events on which nothing is decided (`TOLD_ONLY`) reach the disk with the next one: a kill leaves them in the
        file all the same, only a power cut may take them.

        Numbers of a result's `metrics` that are not finite are left out.

        Raises:
            RunError: the disk refused; the file is as it was.
            ValueError: the event is of no known kind or lacks what its kind has; nothing is written.
        """
        written = _written(event)
        line = (to_json(written) + "\n").encode()
        try:
            done = self._file.write(line)
            if done != len(line):
                raise OSError(28, "the disk is full")
            if written["event"] not in TOLD_ONLY:
                os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(self._end)
            raise _refused(self.path, error) from error
        self._end += len(line)
        apply(self.state, written)
        return written

    def close(self) -> None:
        """No more events."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> StudyState:
    """What the journal comes to, also while a driver is writing it; nothing where there is no file.

    Raises:
        RunError: a line in the middle is no event.
    """
    state = StudyState()
    for event in events(path):
        apply(state, event)
    return state


def events(path: Path) -> Iterator[Event]:
    """Every whole event in order; of a repeated epoch every repetition.

    Raises:
        RunError: a line in the middle is no event.
    """
    for event, _ in _lines(path):
        yield event


def apply(state: StudyState, event: Mapping[str, Any]) -> None:
    """Let one event happen to `state`."""
    kind = event["event"]
    if kind == "note":
        state.notes.append(str(event["text"]))
        return
    number = int(event["trial"])
    if kind == "asked":
        trial = state.trials.setdefault(number, TrialState(number, {}, asked_at=float(event["time"])))
        trial.params = dict(event["params"])
        trial.retry_of = event.get("retry_of", trial.retry_of)
        trial.reopen("waiting")
        return
    trial = state.trials[number]
    if kind == "started":
        trial.reopen("running")
    elif kind == "result":
        trial.state = "running"
        trial.add(_result(event))
    elif kind == "decided":
        trial.rung, trial.by = event.get("rung"), event.get("by")
    elif kind == "ended":
        trial.state = event["state"]
        trial.epoch = int(event.get("epoch") or trial.epoch)
        trial.reason = str(event.get("reason") or "")
        values = event.get("values")
        trial.values = None if values is None else tuple(float(value) for value in values)
        trial.ended_at = float(event["time"])


def _result(event: Mapping[str, Any]) -> Result:
    memory = event.get("memory_mb")
    return Result(
        epoch=int(event["epoch"]),
        step=int(event["step"]),
        metrics=dict(event["metrics"]),
        elapsed_s=float(event.get("elapsed_s") or 0.0),
        memory_mb=None if memory is None else float(memory),
    )


def _written(event: Mapping[str, Any]) -> Event:
    """The event as it goes into the file: the kind first, then its time.

    Raises:
        ValueError: its kind, or what its kind has, is missing.
    """
    kind = str(event.get("event"))
    if kind not in NEEDED:
        raise ValueError(f"event '{kind}' is none of {', '.join(NEEDED)}")
    missing = [name for name in NEEDED[kind] if name not in event]
    if missing:
        raise ValueError(f"event {kind} has no {', '.join(missing)}")
    out: Event = {"event": kind, "time": time.time(), **{k: v for k, v in event.items() if k != "event"}}
    if "metrics" in out:
        out["metrics"] = {str(k): float(v) for k, v in out["metrics"].items() if math.isfinite(v)}
    return out


NEEDED: Mapping[str, tuple[str, ...]] = {
    "asked": ("trial", "params"),
    "started": ("trial",),
    "result": ("trial", "epoch", "step", "metrics"),
    "decided": ("trial", "epoch", "decision"),
    "ended": ("trial", "state", "epoch"),
    "note": ("text",),
}
"""Kind of event -> what it always has, besides its time."""

TOLD_ONLY = ("started", "note")
"""Kinds of event on which nothing is decided."""


def _lines(path: Path) -> Iterator[tuple[Event, int]]:
    """Every whole event and the byte behind its line."""
    end = 0
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise _refused(path, error) from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return  # being written, or torn by a kill
            end += len(line)
            yield _event(line, number, path), end


def _event(line: bytes, number: int, path: Path) -> Event:
    try:
        event = json.loads(line)
        whole = event["event"] in NEEDED and "time" in event and all(name in event for name in NEEDED[event["event"]])
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        raise RunError(
            f"{path}, line {number} is no event of a study ({line[:40].decode(errors='replace').strip()}); "
            "restore the file, or remove that line"
        )
    found: Event = event
    return found


def _refused(path: Path, error: OSError) -> RunError:
    reason = error.strerror or str(error)
    return RunError(f"{path} cannot be written ({reason}); free disk space or mend its permissions, then resume")
