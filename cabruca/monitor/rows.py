"""metrics.jsonl read as it grows: each look reads what is new, and no more than it is given time for.

Columns and not rows are kept: a name has its values and the rows that they stand in, so that half a million rows with a
dozen numbers each take some tens of megabytes.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cabruca.tracking.history import parse_row

Floats = npt.NDArray[np.float64]

OWN = ("time", "stage", "epoch", "step")
BLOCK = 1 << 20
"""Bytes read at a time."""


@dataclass
class Column:
    """Values of one name and the rows they stand in."""

    rows: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))


class Rows:
    """What a metrics.jsonl says so far.

    Attributes:
        complete: whether everything there was is read; False while a large file is being read.
        torn: lines in the middle of the file that are no rows (a power cut may leave one).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._offset, self._inode, self._size, self._rest = 0, -1, 0, b""
        self._own = {name: array("d") for name in OWN}
        self._columns: dict[str, Column] = {}
        self._ends = array("q")
        self._epoch = 0.0
        self.torn = 0
        self.complete = False

    def advance(self, budget_s: float = 1.0) -> bool:
        """Read on, for about `budget_s` seconds; a last line without an end waits for its rest.

        A file that is another one (a resumed run cuts its rows back and writes the file anew) is read from its start.

        Returns:
            Whether anything was new.
        """
        with self._lock:
            return self._advance(time.monotonic() + budget_s)

    def _advance(self, until: float) -> bool:
        try:
            file = self.path.open("rb")
        except OSError:
            there, self.complete = len(self) > 0, True
            if there:
                self._forget()
                self.complete = True
            return there
        before = len(self)
        with file:
            found = os.fstat(file.fileno())
            anew = found.st_ino != self._inode or found.st_size < self._offset
            if anew:
                self._forget()
                self._inode = found.st_ino
            file.seek(self._offset)
            while block := file.read(BLOCK):
                self._take(block)
                if time.monotonic() > until:
                    break
            self.complete = self._offset >= found.st_size
        return anew or len(self) != before

    def _take(self, block: bytes) -> None:
        self._offset += len(block)
        *lines, self._rest = (self._rest + block).split(b"\n")
        for line in lines:
            self._add(line)

    def _add(self, line: bytes) -> None:
        row = parse_row(line)
        if row is None:
            self.torn += bool(line.strip(b"\0 \r"))
            return
        place = len(self)
        for name in OWN:
            value = row.get(name)
            self._own[name].append(float(value) if isinstance(value, int | float) else np.nan)
        epoch = self._own["epoch"][-1]
        if epoch > self._epoch:
            self._ends.append(place)
            self._epoch = epoch
        for name, value in row.items():
            if name not in OWN and isinstance(value, int | float) and not isinstance(value, bool):
                column = self._columns.get(name) or self._columns.setdefault(name, Column())
                column.rows.append(place)
                column.values.append(value)

    def __len__(self) -> int:
        return len(self._own["step"])

    @property
    def names(self) -> list[str]:
        """Of all metrics, in order of first appearance."""
        with self._lock:
            return list(self._columns)

    def own(self, name: str) -> Floats:
        """`[rows]` of `time` (seconds since 1970), `stage`, `epoch` (completed) or `step`."""
        with self._lock:
            return np.array(self._own[name])

    def epoch_places(self) -> Floats:
        """`[rows]` where each row stands on an axis of epochs: those completed, and the share of the one under way.

        Rows inside an epoch are spread evenly between its ends; those of the epoch under way as those before them.
        """
        with self._lock:
            return _between(np.array(self._own["step"]), np.array(self._own["epoch"]), np.array(self._ends, dtype=int))

    def column(self, name: str, *, epochs: bool | None = None) -> tuple[npt.NDArray[np.int64], Floats]:
        """Rows and values of a metric, empty where it has none.

        Args:
            epochs: True: only those of rows that close an epoch, of which those of training are means; False: only
                those inside an epoch; None: all.
        """
        with self._lock:
            column = self._columns.get(name)
            if column is None:
                return np.zeros(0, dtype=np.int64), np.zeros(0)
            rows, values = np.array(column.rows, dtype=np.int64), np.array(column.values)
            if epochs is not None:
                kept = np.isin(rows, np.array(self._ends, dtype=np.int64)) == epochs
                rows, values = rows[kept], values[kept]
            return rows, values


def _between(steps: Floats, epochs: Floats, ends: npt.NDArray[np.int64]) -> Floats:
    if len(ends) == 0:
        return np.zeros_like(steps)
    at = np.concatenate([[0.0], steps[ends]])
    to = np.concatenate([[0.0], epochs[ends]])
    last = (at[-1] - at[-2]) / max(to[-1] - to[-2], 1.0)
    beyond = (steps - at[-1]) / last if last > 0 else np.zeros_like(steps)
    places: Floats = np.where(steps > at[-1], to[-1] + np.minimum(beyond, 0.999), np.interp(steps, at, to))
    return places
