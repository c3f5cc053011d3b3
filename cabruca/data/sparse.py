"""Which blocks of a GeoTIFF were never written: a sparse file of 100,000 x 100,000 px is looked through in seconds."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cabruca.data import raster
from cabruca.data.raster import Rect

ROWS_KEPT = 4096
"""Rows of blocks remembered a raster; a row of a striped raster is one block."""


class Blocks:
    """The blocks of band 1 of one raster, looked up when they are asked for. Formats without blocks have one.

    Args:
        path: of the raster. grid_hw: rows and columns that windows are given on, over the whole raster.
    """

    def __init__(self, path: Path, grid_hw: tuple[int, int]) -> None:
        source = raster.source(path)
        self._path = path
        self._hw, self._grid_hw = (source.height, source.width), grid_hw
        self._block_hw: tuple[int, int] = source.block_shapes[0]
        self._looked_up = source.driver == "GTiff"
        self._rows: OrderedDict[int, npt.NDArray[np.bool_]] = OrderedDict()

    def empty(self, window: Rect) -> bool:
        """Whether no block under the window (x, y, w, h) was ever written."""
        if not self._looked_up:
            return False
        x, y, w, h = window
        columns = self._span(x, w, 1)
        return not any(bool(self._row(r)[columns.start : columns.stop].any()) for r in self._span(y, h, 0))

    def written(self, window: Rect) -> npt.NDArray[np.bool_] | None:
        """bool `[h, w]`: pixels whose block was written; None: all of them."""
        if not self._looked_up:
            return None
        x, y, w, h = window
        rows, columns = self._span(y, h, 0), self._span(x, w, 1)
        there = np.stack([self._row(r)[columns.start : columns.stop] for r in rows])
        if there.all():
            return None
        return np.asarray(there[self._blocks(y, h, 0) - rows.start][:, self._blocks(x, w, 1) - columns.start])

    def _blocks(self, start: int, length: int, axis: int) -> npt.NDArray[np.int64]:
        """The block that each grid pixel's centre lies in, along an axis."""
        at = (np.arange(start, start + length) + 0.5) * self._hw[axis] / self._grid_hw[axis]
        pixels = at.astype(np.int64).clip(0, self._hw[axis] - 1)
        return np.asarray(pixels // self._block_hw[axis], dtype=np.int64)

    def _span(self, start: int, length: int, axis: int) -> range:
        return range(self._block(start, axis), self._block(start + length - 1, axis) + 1)

    def _block(self, pixel: int, axis: int) -> int:
        at = int((pixel + 0.5) * self._hw[axis] / self._grid_hw[axis])
        return int(min(at, self._hw[axis] - 1) // self._block_hw[axis])

    def _row(self, r: int) -> npt.NDArray[np.bool_]:
        if r not in self._rows:
            tag = raster.source(self._path).get_tag_item
            count = -(-self._hw[1] // self._block_hw[1])
            there = [tag(f"BLOCK_OFFSET_{c}_{r}", "TIFF", bidx=1) is not None for c in range(count)]
            self._rows[r] = np.array(there, dtype=np.bool_)
            if len(self._rows) > ROWS_KEPT:
                self._rows.popitem(last=False)
        return self._rows[r]
