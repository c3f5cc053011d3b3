"""Dense outputs of a raster on their way to GeoTIFF: flat files in the working folder, written window by window.

A flat file begins as all zeros, which a disk need not store; so "unknown" is what zero stands for. Writing the same
window twice changes nothing, which is what makes going on after a kill exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cabruca.data.cog import write_cog
from cabruca.durable import sync
from cabruca.predict.found import Look, cells_of
from cabruca.predict.picture import Picture
from cabruca.predict.windows import STRIDE_PX
from cabruca.structures import IGNORE

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """One raster: its file's ending, pixel type, the value of unknown pixels, grid px a pixel."""

    name: str
    dtype: str
    nodata: int
    side_px: int

    def hw(self, grid_hw: tuple[int, int]) -> tuple[int, int]:
        return (-(-grid_hw[0] // self.side_px), -(-grid_hw[1] // self.side_px))

    def encoded(self, values: Array) -> Array:
        """Unknown becomes 0."""
        return IGNORE - values if self.dtype == "uint8" else values - np.float32(self.nodata)

    def decoded(self, values: Array) -> Array:
        return IGNORE - values if self.dtype == "uint8" else values + np.float32(self.nodata)


SEMANTIC = Kind("semantic", "uint8", IGNORE, 1)
DENSITY = Kind("canopy_density", "float32", -1, STRIDE_PX)
SHADE = Kind("shade", "float32", -1, STRIDE_PX)
KINDS = (SEMANTIC, DENSITY, SHADE)


def raster_files(folder: Path | None, image: str) -> list[Path]:
    """What `publish` writes for an image, in the order of `KINDS`."""
    return [] if folder is None else [folder / f"{Path(image).stem}.{kind.name}.tif" for kind in KINDS]


@dataclass(frozen=True)
class Planes:
    """The dense outputs of one picture.

    Args:
        scratch: working folder. number: of the picture.
    """

    scratch: Path
    number: int
    picture: Picture

    def write(self, look: Look) -> None:
        """The core of one window."""
        x0, y0, x1, y1 = look.window.core
        if look.semantic is not None:
            self._put(SEMANTIC, look.semantic, (y0, y1, x0, x1))
        cells = cells_of(look.window, self.picture.grid_hw)
        if look.density is not None:
            self._put(DENSITY, look.density, cells)
        if look.shade is not None:
            self._put(SHADE, look.shade, cells)

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        for kind in KINDS:
            if self._file(kind).is_file():
                sync(self._file(kind))

    def publish(self, folder: Path) -> list[Path]:
        """Write the GeoTIFFs of what there is, `<image>.<kind>.tif` each. The flat files stay until the map is there: a
        kill before that makes the rasters again.

        Raises:
            DataError: the disk is full, or the folder may not be written.
        """
        written = []
        for kind, path in zip(KINDS, raster_files(folder, self.picture.name), strict=True):
            if not self._file(kind).is_file():
                continue
            a, b, c, d, e, f = self.picture.affine
            s = kind.side_px
            write_cog(
                path,
                partial(self._part, kind),
                kind.hw(self.picture.grid_hw),
                kind.dtype,
                nodata=kind.nodata,
                affine=(a * s, b * s, c, d * s, e * s, f) if self.picture.crs else None,
                crs=self.picture.crs,
                nearest=kind is SEMANTIC,
            )
            written.append(path)
        return written

    def _file(self, kind: Kind) -> Path:
        return self.scratch / f"{self.number}.{kind.name}.flat"

    def _put(self, kind: Kind, values: Array, cells: tuple[int, int, int, int]) -> None:
        path, hw = self._file(kind), kind.hw(self.picture.grid_hw)
        size = hw[0] * hw[1] * np.dtype(kind.dtype).itemsize
        if not path.is_file() or path.stat().st_size != size:
            with path.open("ab") as file:
                file.truncate(size)
        r0, r1, c0, _ = cells
        rows = np.ascontiguousarray(kind.encoded(values), dtype=kind.dtype)
        with path.open("r+b") as file:  # not mapped: on a full disk a page that cannot be stored is SIGBUS
            for row, content in zip(range(r0, r1), rows, strict=True):
                file.seek((row * hw[1] + c0) * rows.itemsize)
                file.write(content.tobytes())

    def _part(self, kind: Kind, y0: int, x0: int, y1: int, x1: int) -> Array:
        plane = np.memmap(self._file(kind), dtype=kind.dtype, mode="r", shape=kind.hw(self.picture.grid_hw))
        return kind.decoded(np.array(plane[y0:y1, x0:x1]))
