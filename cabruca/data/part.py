"""Pictures that are a part of a raster: the window they are read through, and the ground that somebody labelled.

In the COCO file: `images[].window` (x, y, width, height on the raster), `.raster_size` (width, height of the raster)
and `.labelled`, the coordinates of a GeoJSON MultiPolygon in pixels of the picture. Ground outside of `labelled` is
seen and never judged: no loss, no metric, no negative example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine

from cabruca.data.raster import Rect
from cabruca.errors import DataError

Bools = npt.NDArray[np.bool_]

FINER = 4
"""Cells along a side that a cell of a coarse map is looked at with."""


@dataclass(frozen=True)
class Part:
    """x, y, width, height of the picture on its raster, and width and height of the raster, px."""

    window: Rect
    raster_wh: tuple[int, int]


class Labelled:
    """The labelled ground of one picture, a multipolygon in its pixels."""

    def __init__(self, shape: shapely.Geometry, size_hw: tuple[int, int]) -> None:
        self.shape, self._size_hw = shape, size_hw

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_prepared"}  # a pickled geometry is not prepared

    @cached_property
    def _prepared(self) -> shapely.Geometry:
        shapely.prepare(self.shape)
        return self.shape

    def paint(self, window: Rect, grid_hw: tuple[int, int]) -> Bools | None:
        """bool `[h, w]` of a window on the grid: pixels whose centre is labelled; None where all of them are."""
        x, y, w, h = window
        sx, sy = self._size_hw[1] / grid_hw[1], self._size_hw[0] / grid_hw[0]
        frame = shapely.box(x * sx, y * sy, (x + w) * sx, (y + h) * sy)
        if self._prepared.covers(frame):
            return None
        if not self._prepared.intersects(frame):
            return np.zeros((h, w), dtype=np.bool_)
        return self._painted((h, w), Affine(sx, 0, x * sx, 0, sy, y * sy))

    def share_map(self, shape_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
        """float32 of that shape over the whole picture: labelled share of each cell."""
        rows, columns = shape_hw
        step = Affine(self._size_hw[1] / columns / FINER, 0, 0, 0, self._size_hw[0] / rows / FINER, 0)
        fine = self._painted((rows * FINER, columns * FINER), step)
        return np.asarray(fine.reshape(rows, FINER, columns, FINER).mean(axis=(1, 3)), dtype=np.float32)

    def _painted(self, shape_hw: tuple[int, int], to_picture: Affine) -> Bools:
        found = rasterize([self.shape], out_shape=shape_hw, transform=to_picture, dtype=np.uint8)
        return np.asarray(found > 0)


def read_part(path: Path, row: dict[str, Any], size_hw: tuple[int, int]) -> Part | None:
    """`window` and `raster_size` of a row of `images`; None for a picture that is a whole file.

    Raises:
        DataError: malformed, of another size than the picture, or not inside the raster.
    """
    window, raster = row.get("window"), row.get("raster_size")
    if window is None:
        return None
    where = f"{path}: image {row.get('id')} has window {window!r} and raster_size {raster!r}"
    if window is None or raster is None or not _whole(window, 4) or not _whole(raster, 2):
        raise DataError(f"{where}; they must be [x, y, width, height] and [width, height] in whole pixels")
    x, y, w, h = window
    if (h, w) != size_hw:
        raise DataError(f"{where}, and its size is {size_hw[1]} x {size_hw[0]}; window and picture must be of one size")
    if min(x, y) < 0 or x + w > raster[0] or y + h > raster[1]:
        raise DataError(f"{where}; the window must lie inside the raster: prepare the data anew")
    return Part((x, y, w, h), (raster[0], raster[1]))


def _whole(value: Any, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
    )


def read_labelled(path: Path, row: dict[str, Any], size_hw: tuple[int, int]) -> Labelled | None:
    """`labelled` of a row of `images`; None where the whole picture is labelled.

    Raises:
        DataError: it is no multipolygon, or has no area inside the picture.
    """
    found = row.get("labelled")
    if found is None:
        return None
    wrong = f"{path}: image {row.get('id')} has a labelled ground that"
    try:
        rings = [[np.asarray(ring, dtype=np.float64) for ring in polygon] for polygon in found]
        shape = _union([shapely.Polygon(polygon[0], polygon[1:]) for polygon in rings])
        inside = shape.intersection(shapely.box(0, 0, size_hw[1], size_hw[0])).area
    except (TypeError, ValueError, IndexError, shapely.errors.GEOSException) as error:
        raise DataError(f"{wrong} is no list of polygons [[[x, y], ...], holes ...] ({error}); mend it") from error
    if not inside > 0:
        raise DataError(f"{wrong} covers none of the picture; leave the image out")
    return Labelled(shape, size_hw)


def _union(polygons: Sequence[shapely.Geometry]) -> shapely.Geometry:
    """Of what has area in them; rings that cross themselves are mended."""
    parts = [q for p in polygons for part in shapely.get_parts(shapely.make_valid(p)) for q in shapely.get_parts(part)]
    return shapely.union_all([part for part in parts if part.geom_type == "Polygon"])
