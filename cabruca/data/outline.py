"""From a bitmap to the polygon around it, and back from a polygon to the pixels inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio import Affine as Transform
from rasterio import features

Bools = npt.NDArray[np.bool_]


def outlines(bitmap: npt.NDArray[Any]) -> list[shapely.Polygon]:
    """Polygons along the pixels' edges, one a piece of touching pixels (touching at a corner is not enough), in px of
    the bitmap; holes are holes. Largest first."""
    pixels = np.ascontiguousarray(bitmap, dtype=np.uint8)
    found = features.shapes(pixels, mask=pixels > 0, connectivity=4)
    pieces = [shapely.Polygon(g["coordinates"][0], g["coordinates"][1:]) for g, _ in found]
    return sorted(pieces, key=lambda p: (-p.area, p.bounds))


def largest_piece(bitmap: npt.NDArray[Any]) -> shapely.Polygon | None:
    """The outline of the largest piece; None where no pixel is set."""
    return next(iter(outlines(bitmap)), None)


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
