"""A crown, a cell and a plot as the rows of the map that they become."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import shapely
from shapely import affinity

from cabruca.data.outline import largest_piece
from cabruca.predict.found import Found
from cabruca.predict.picture import Picture

Row = dict[str, Any]
"""Column -> value; `wkb` is the geometry, hexadecimal, in the raster's CRS."""

SIMPLIFY_PX = 0.75
"""Default tolerance of crown polygons: enough to turn the steps along pixels into straight lines."""


@dataclass(frozen=True)
class Shape:
    """A crown's outline in grid px along the pixels' edges; `box`: it has no mask, and stands for an ellipse."""

    polygon: shapely.Polygon
    box: bool

    @classmethod
    def of(cls, found: Found) -> Shape:
        """The largest piece of the mask, else the box."""
        if found.mask is not None:
            x, y, pixels = found.mask
            piece = largest_piece(pixels)
            if piece is not None:
                return cls(affinity.translate(piece, x, y), box=False)
        return cls(shapely.box(*found.box), box=True)

    @property
    def centre(self) -> tuple[float, float]:
        """Column and row."""
        point = self.polygon.centroid
        return (point.x, point.y)


def to_map(geometry: Any, picture: Picture) -> Any:
    """From grid px to the raster's CRS."""
    a, b, c, d, e, f = picture.affine
    return affinity.affine_transform(geometry, [a, b, d, e, c, f])


def crown_row(found: Found, shape: Shape, picture: Picture, *, number: int, name: str, simplify_px: float) -> Row:
    """The row of one crown.

    Area and diameter are those of the outline before it is simplified: `2 sqrt(area / pi)`; of a box those of the
    ellipse in it: `pi/4 w h` and `(w + h) / 2`.
    """
    polygon = shape.polygon
    area_m2 = diameter_m = None
    if picture.metres is not None:
        m = picture.metres
        if shape.box:
            x0, y0, x1, y1 = found.box
            area_m2 = math.pi / 4 * (x1 - x0) * (y1 - y0) * m.area
            diameter_m = ((x1 - x0) * m.x + (y1 - y0) * m.y) / 2
        else:
            area_m2 = polygon.area * m.area
            diameter_m = 2 * math.sqrt(area_m2 / math.pi)
    x, y = to_map(shapely.Point(shape.centre), picture).coords[0]
    drawn = polygon if shape.box or simplify_px == 0 else _simplified(polygon, simplify_px)
    return {
        "crown_id": number,
        "class": name,
        "score": found.score,
        "area_m2": area_m2,
        "diameter_m": diameter_m,
        "centroid_x": x,
        "centroid_y": y,
        "canopy_share": None if math.isnan(found.canopy_share) else found.canopy_share,
        "shape": "box" if shape.box else "mask",
        "image": picture.name,
        "wkb": to_map(drawn, picture).wkb_hex,
    }


def _simplified(polygon: shapely.Polygon, tolerance_px: float) -> shapely.Polygon:
    """A polygon of few pixels may come to nothing; it then stays as it is."""
    simple = polygon.simplify(tolerance_px)
    return simple if simple.geom_type == "Polygon" and simple.is_valid and simple.area > 0 else polygon


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
