"""metrics.jsonl and training_history.json: what happened, readable while it happens and after a kill.

metrics.jsonl is the source: one row a record, `{time, stage, epoch, step, name: value...}`, NaN as null, appended
and never changed while a run lives. Only a resume cuts it back: rows after the resumed (epoch, step) are dropped,
because the resumed run makes them again; so every (epoch, step) is there once. A half-written last line, left by
a kill or a power cut, is dropped at the same moment, and readers skip it.

training_history.json is derived, `{name: [one value an epoch]}` with `epoch` and `step` among the names and null
where an epoch has no value; it is rewritten whole after every epoch.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cabruca.tracking.files import plain, to_json, write_atomic

if TYPE_CHECKING:  # a reader of rows, such as the monitor, needs no torch
    from cabruca.train.protocols import Record

Row = dict[str, Any]

_OWN = ("time", "stage", "epoch", "step")


def read_rows(path: Path) -> Iterator[Row]:
    """The whole rows of a metrics.jsonl, in order; a torn line is passed over. Nothing where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            row = parse_row(line)
            if row is not None:
                yield row


def parse_row(line: bytes) -> Row | None:
    """A line as a row; None of what is none."""
    try:
        row = json.loads(line)
    except ValueError:  # half a line, or the zeros that a power cut can leave
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) and "epoch" in row else None


def row_of(record: Record) -> Row:
    """A record as the row that is written."""
    own = {"time": time.time(), "stage": record.stage, "epoch": record.epoch, "step": record.step}
    return {**own, **plain(record.metrics)}


class History:
    """Writes both files of one run.

    Args:
        metrics: path of metrics.jsonl; history: path of training_history.json.
    """

    def __init__(self, metrics: Path, history: Path) -> None:
        self.metrics = metrics
        self.history = history
        self._epochs: list[Row] = []

    def start(self, *, epoch: int = 0, step: int = 0) -> None:
        """Begin, or go on after `epoch` completed epochs and `step` optimizer steps: later rows are dropped."""
        kept: list[Row] = []
        for row in read_rows(self.metrics):
            if row["step"] <= step and row["epoch"] <= epoch:
                kept.append(row)
        if self.metrics.is_file():
            write_atomic(self.metrics, "".join(to_json(row) + "\n" for row in kept))
        self._epochs = list(_epoch_rows(kept))
        if self._epochs or self.history.is_file():
            self._rewrite()

    def append(self, record: Record) -> None:
        """One row for a record inside an epoch."""
        self._write(row_of(record))

    def append_epoch(self, record: Record) -> None:
        """One row for an epoch's end; training_history.json is rewritten."""
        row = row_of(record)
        self._write(row)
        self._epochs.append(row)
        self._rewrite()

    def _write(self, row: Row) -> None:
        line = (to_json(row) + "\n").encode()
        # one write of one whole line on a file opened for appending: a reader never sees two rows mixed
        descriptor = os.open(self.metrics, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _rewrite(self) -> None:
        lines = (f"{to_json(name)}: {to_json(values)}" for name, values in columns(self._epochs).items())
        write_atomic(self.history, "{\n" + ",\n".join(lines) + "\n}\n")  # a line a name: people read it too


def columns(rows: list[Row]) -> Mapping[str, list[Any]]:
    """`{name: [value a row]}` in order of first appearance, null where a row lacks the name."""
    names = dict.fromkeys(name for row in rows for name in row if name not in _OWN)
    return {name: [row.get(name) for row in rows] for name in ("epoch", "step", *names)}


def _epoch_rows(rows: list[Row]) -> Iterator[Row]:
    """Those that close an epoch: there the count of completed epochs grows."""
    before = 0
    for row in rows:
        if row["epoch"] > before:
            yield row
        before = row["epoch"]
