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
    """The blocks of band 1 of one raster, looked up when they are asked for. Formats without blocks have one."""

    def __init__(self, path: Path) -> None:
        self._source = raster.source(path)
        self._block_hw: tuple[int, int] = self._source.block_shapes[0]
        self._looked_up = self._source.driver == "GTiff"
        self._rows: OrderedDict[int, npt.NDArray[np.bool_]] = OrderedDict()

    def empty(self, window: Rect, grid_hw: tuple[int, int]) -> bool:
        """Whether no block under the window (x, y, w, h on a grid over the whole raster) was ever written."""
        if not self._looked_up:
            return False
        x, y, w, h = window
        sy, sx = self._source.height / grid_hw[0], self._source.width / grid_hw[1]
        bh, bw = self._block_hw
        last_row, last_column = self._source.height - 1, self._source.width - 1
        rows = range(min(int(y * sy), last_row) // bh, min(int((y + h) * sy), last_row) // bh + 1)
        columns = slice(min(int(x * sx), last_column) // bw, min(int((x + w) * sx), last_column) // bw + 1)
        return not any(bool(self._row(r)[columns].any()) for r in rows)

    def _row(self, r: int) -> npt.NDArray[np.bool_]:
        if r not in self._rows:
            count = -(-self._source.width // self._block_hw[1])
            tag = self._source.get_tag_item
            there = [tag(f"BLOCK_OFFSET_{c}_{r}", "TIFF", bidx=1) is not None for c in range(count)]
            self._rows[r] = np.array(there, dtype=np.bool_)
            if len(self._rows) > ROWS_KEPT:
                self._rows.popitem(last=False)
        return self._rows[r]
