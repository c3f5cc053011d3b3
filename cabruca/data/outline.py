"""From a bitmap to the polygon around it, and back from a polygon to the pixels inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio import Affine as Transform
from rasterio import features

Bools = npt.NDArray[np.bool_]

SHEET_PX = 1024
"""Side of the sheets that bitmaps are outlined on; one larger bitmap makes a larger sheet."""


def outlines(bitmap: npt.NDArray[Any]) -> list[shapely.Polygon]:
    """Polygons along the pixels' edges, one a piece of touching pixels (touching at a corner is not enough), in px of
    the bitmap; holes are holes. Largest first."""
    pixels = np.ascontiguousarray(bitmap, dtype=np.uint8)
    found = features.shapes(pixels, mask=pixels > 0, connectivity=4)
    pieces = [shapely.Polygon(g["coordinates"][0], g["coordinates"][1:]) for g, _ in found]
    return sorted(pieces, key=lambda p: (-p.area, p.bounds))


def largest_pieces(bitmaps: Sequence[npt.NDArray[Any]]) -> list[shapely.Polygon | None]:
    """The outline of the largest piece of each bitmap, in px of that bitmap; None where no pixel is set.

    Many are outlined at once, side by side on one sheet: GDAL takes milliseconds to begin, and microseconds a piece.
    """
    best: list[shapely.Polygon | None] = [None] * len(bitmaps)
    for first, sheet, corners in _sheets(bitmaps):
        found: dict[int, shapely.Polygon] = {}
        for geometry, label in features.shapes(sheet, mask=sheet > 0, connectivity=4):
            piece = shapely.Polygon(geometry["coordinates"][0], geometry["coordinates"][1:])
            number = int(label) - 1
            before = found.get(number)
            if before is None or (-piece.area, piece.bounds) < (-before.area, before.bounds):
                found[number] = piece
        numbers = sorted(found)
        pieces = np.array([found[n] for n in numbers], dtype=object)
        points, owner = shapely.get_coordinates(pieces, return_index=True)
        moved = shapely.set_coordinates(pieces, points - corners[numbers][owner])
        for number, piece in zip(numbers, moved, strict=True):
            best[first + number] = piece
    return best


def _sheets(
    bitmaps: Sequence[npt.NDArray[Any]],
) -> Iterator[tuple[int, npt.NDArray[np.int32], npt.NDArray[np.float64]]]:
    """The bitmaps on sheets of limited size, a px apart and numbered from 1: the number of the first, the sheet, and
    the corner (x, y) of each."""
    width = max([SHEET_PX, *(b.shape[1] for b in bitmaps)])
    start = 0
    while start < len(bitmaps):
        x = y = tallest = 0
        corners: list[tuple[int, int]] = []
        for bitmap in bitmaps[start:]:
            h, w = bitmap.shape
            if x + w > width:
                x, y, tallest = 0, y + tallest + 1, 0
            if corners and y + h > SHEET_PX:
                break
            corners.append((x, y))
            x, tallest = x + w + 1, max(tallest, h)
        height = max(y + b.shape[0] for (_, y), b in zip(corners, bitmaps[start:], strict=False))
        sheet = np.zeros((height, width), dtype=np.int32)
        for number, ((x, y), bitmap) in enumerate(zip(corners, bitmaps[start:], strict=False), 1):
            sheet[y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = np.where(bitmap, number, 0)
        yield start, sheet, np.array(corners, dtype=np.float64)
        start += len(corners)


def inside(area: Any, x: int, y: int, w: int, h: int) -> Bools:
    """bool `[h, w]`: pixels of the window at (x, y) whose centre lies in the geometry `area`, both in grid px."""
    if area is None or area.is_empty:
        return np.zeros((h, w), dtype=np.bool_)
    window = shapely.box(x, y, x + w, y + h)
    if area.contains(window):
        return np.ones((h, w), dtype=np.bool_)
    part = area.intersection(window)
    pieces = [g for g in getattr(part, "geoms", [part]) if g.geom_type == "Polygon" and g.area > 0]
    if not pieces:
        return np.zeros((h, w), dtype=np.bool_)
    painted = features.rasterize(pieces, out_shape=(h, w), transform=Transform.translation(x, y), dtype=np.uint8)
    return np.asarray(painted > 0)
