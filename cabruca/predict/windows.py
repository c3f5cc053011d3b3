"""Where the windows of a prediction lie: row by row, overlapping, on places that the network's strides agree with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from cabruca.errors import ConfigError

STRIDE_PX = 32
"""Coarsest stride of the network. Windows that lie at multiples of it see the same cells, so that what two windows say
of a crown between them differs by their context alone."""


@dataclass(frozen=True)
class Span:
    """A window along one axis: `start` to `end`, and its core: `core_start` to `core_end`."""

    start: int
    end: int
    core_start: int
    core_end: int


@dataclass(frozen=True)
class Window:
    """One window of the grid. `index` counts row by row; `x`, `y` are its columns and rows."""

    index: int
    row: int
    x: Span
    y: Span

    @property
    def rect(self) -> tuple[int, int, int, int]:
        """x, y, width, height on the grid."""
        return (self.x.start, self.y.start, self.x.end - self.x.start, self.y.end - self.y.start)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 on the grid."""
        return (self.x.start, self.y.start, self.x.end, self.y.end)

    @property
    def core(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 on the grid; the cores cover it once."""
        return (self.x.core_start, self.y.core_start, self.x.core_end, self.y.core_end)


@dataclass(frozen=True)
class Grid:
    """The windows over a raster of `hw` rows and columns, `side` px each; neighbours share at least `overlap` px."""

    hw: tuple[int, int]
    side: int
    overlap: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @classmethod
    def over(cls, hw: tuple[int, int], side: int, overlap: int) -> Grid:
        """Lay the windows.

        Raises:
            ConfigError: the overlap is not smaller than the window.
        """
        if overlap >= side:
            raise ConfigError(
                f"overlap {overlap} px is not smaller than the window of {side} px; lower --overlap or raise "
                f"--tile-size to {2 * overlap} or more"
            )
        return cls(hw, side, overlap, spans(hw[0], side, overlap), spans(hw[1], side, overlap))

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def window(self, index: int) -> Window:
        row, column = divmod(index, len(self.columns))
        return Window(index, row, self.columns[column], self.rows[row])

    def __iter__(self) -> Iterator[Window]:
        return (self.window(i) for i in range(len(self)))

    def swept(self, row: int) -> int:
        """Grid row above which no window after window row `row` looks; the height after the last."""
        return self.rows[row + 1].start if row + 1 < len(self.rows) else self.hw[0]


def spans(length: int, side: int, overlap: int) -> tuple[Span, ...]:
    """Windows along one axis: the line between two cores runs through the middle of what they share.

    Starts are multiples of 32 px where the window and the overlap leave room for it; the last window may then end
    before `side` px, at the raster's end.
    """
    if length <= side:
        return (Span(0, length, 0, length),)
    step = side - overlap
    unit = STRIDE_PX if step >= STRIDE_PX else 1
    step -= step % unit
    last = -(-(length - side) // unit) * unit
    starts = [*range(0, last, step), last]
    ends = [min(s + side, length) for s in starts]
    lines = [0]
    for (_, end), (start, _) in pairwise(zip(starts, ends, strict=True)):
        middle = (start + end) // 2
        lines.append(max(start, middle - middle % unit))
    lines.append(length)
    return tuple(Span(s, e, a, b) for s, e, (a, b) in zip(starts, ends, pairwise(lines), strict=True))
