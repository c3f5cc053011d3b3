"""A crown, a cell and a plot as the rows of the map that they become."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely import affinity

from cabruca.data.outline import largest_pieces
from cabruca.predict.found import Found
from cabruca.predict.picture import Picture

Row = dict[str, Any]
"""Column -> value; `wkb` is the geometry, hexadecimal, in the raster's CRS."""

POLYGON = 3
"""Shapely's number of the type."""

SIMPLIFY_PX = 0.75
"""Default tolerance of crown polygons: enough to turn the steps along pixels into straight lines."""


@dataclass(frozen=True)
class Shapes:
    """Outlines of N crowns in grid px along the pixels' edges.

    Attributes:
        polygons: object `[N]`. boxes: bool `[N]`: it has no mask, and stands for an ellipse. centres: `[N, 2]`, column
            and row.
    """

    polygons: npt.NDArray[Any]
    boxes: npt.NDArray[np.bool_]
    centres: npt.NDArray[np.float64]

    @classmethod
    def of(cls, crowns: Sequence[Found]) -> Shapes:
        """The largest piece of each mask, else the box."""
        masks = [(0, 0, _NONE) if c.mask is None else c.mask for c in crowns]
        pieces = largest_pieces([m for _, _, m in masks])
        boxes = np.array([p is None for p in pieces], dtype=np.bool_)
        own = [shapely.box(*c.box) if p is None else p for c, p in zip(crowns, pieces, strict=True)]
        polygons = np.array(own, dtype=object)
        corners = np.array([(x, y) for x, y, _ in masks], dtype=np.float64).reshape(-1, 2)
        corners[boxes] = 0.0
        points, owner = shapely.get_coordinates(polygons, return_index=True)
        polygons = shapely.set_coordinates(polygons, points + corners[owner])
        return cls(polygons, boxes, shapely.get_coordinates(shapely.centroid(polygons)))

    def select(self, keep: npt.NDArray[np.bool_]) -> Shapes:
        return Shapes(self.polygons[keep], self.boxes[keep], self.centres[keep])


_NONE = np.zeros((1, 1), dtype=np.bool_)


def to_map(geometry: Any, picture: Picture) -> Any:
    """From grid px to the raster's CRS."""
    a, b, c, d, e, f = picture.affine
    return affinity.affine_transform(geometry, [a, b, d, e, c, f])


def crown_rows(
    crowns: Sequence[Found], shapes: Shapes, picture: Picture, *, first: int, names: Sequence[str], simplify_px: float
) -> list[Row]:
    """The rows of crowns, numbered from `first`.

    Area and diameter are those of the outline before it is simplified: `2 sqrt(area / pi)`; of a box those of the
    ellipse in it: `pi/4 w h` and `(w + h) / 2`.
    """
    a, b, c, d, e, f = picture.affine
    x, y = shapes.centres.T
    drawn = _simplified(shapes, simplify_px)
    moved = shapely.transform(
        drawn, lambda p: np.stack([a * p[:, 0] + b * p[:, 1] + c, d * p[:, 0] + e * p[:, 1] + f], 1)
    )
    texts = shapely.to_wkb(moved, hex=True)
    places = zip((a * x + b * y + c).tolist(), (d * x + e * y + f).tolist(), strict=True)
    px = shapely.area(shapes.polygons).tolist()
    rows = []
    for k, (found, (map_x, map_y)) in enumerate(zip(crowns, places, strict=True)):
        box = bool(shapes.boxes[k])
        area_m2, diameter_m = _size_m(found, px[k], picture, box=box)
        rows.append(
            {
                "crown_id": first + k,
                "class": names[found.label - 1],
                "score": found.score,
                "area_m2": area_m2,
                "diameter_m": diameter_m,
                "centroid_x": map_x,
                "centroid_y": map_y,
                "canopy_share": None if math.isnan(found.canopy_share) else found.canopy_share,
                "shape": "box" if box else "mask",
                "image": picture.name,
                "wkb": texts[k],
            }
        )
    return rows


def _size_m(found: Found, area_px: float, picture: Picture, *, box: bool) -> tuple[float | None, float | None]:
    """Square metres and metres across; None where the raster has no scale."""
    m = picture.metres
    if m is None:
        return None, None
    if box:
        x0, y0, x1, y1 = found.box
        return math.pi / 4 * (x1 - x0) * (y1 - y0) * m.area, ((x1 - x0) * m.x + (y1 - y0) * m.y) / 2
    area_m2 = area_px * m.area
    return area_m2, 2 * math.sqrt(area_m2 / math.pi)


def _simplified(shapes: Shapes, tolerance_px: float) -> npt.NDArray[Any]:
    """Polygons of few pixels may come to nothing; they then stay as they are."""
    if tolerance_px == 0:
        return shapes.polygons
    simple = shapely.simplify(shapes.polygons, tolerance_px)
    good = (shapely.get_type_id(simple) == POLYGON) & shapely.is_valid(simple) & (shapely.area(simple) > 0)
    return np.where(good & ~shapes.boxes, simple, shapes.polygons)


@dataclass
class Cell:
    """What is known of one window's core so far; pixels, and crowns a label."""

    known_px: int
    tree_px: int | None
    shade_px: int | None
    crowns: list[int]


def cell_row(window: int, core: tuple[int, int, int, int], cell: Cell, picture: Picture, names: Sequence[str]) -> Row:
    """The row of one cell of the grid."""
    metres = picture.metres
    return {
        "window": window,
        "image": picture.name,
        "known_ha": None if metres is None else cell.known_px * metres.area / 1e4,
        "canopy_cover": share(cell.tree_px, cell.known_px),
        "shade_cover": share(cell.shade_px, cell.known_px),
        **{f"n_{name}": n for name, n in zip(names, cell.crowns, strict=True)},
        "wkb": to_map(shapely.box(*core), picture).wkb_hex,
    }


def share(part: int | None, whole: int) -> float | None:
    return None if part is None or whole == 0 else part / whole
