"""Pictures of `cabruca data prepare`: windows of a raster with their labelled ground, and the crowns of each.

A crown belongs to the block that the centre of its box lies in, and so to one split. Where it reaches into ground of
another split it is written there too, as a region to ignore (`iscrowd`): neither a crown nor background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import shapely

from cabruca.data.classes import IGNORED
from cabruca.data.prepare_ground import Ortho
from cabruca.data.prepare_labels import only_polygons
from cabruca.data.prepare_split import block_of
from cabruca.data.raster import Rect
from cabruca.data.vector import Shapes

ON_LINE_PX = 1e-3
"""A centre that is so near to labelled ground lies in it: the lines of blocks are moved between systems."""


THINNEST_PX = 1.0
"""Parts of the ground that are thinner hold nothing to learn from, and vanish when coordinates are rounded."""


@dataclass(frozen=True)
class Placed:
    """The labels that touch one raster, N of them, in its pixels and cut at its edge.

    Attributes:
        rows: int `[N]`, their number among all labels. centres: points, of the boxes around them before the cut: of
            neighbouring rasters one holds it, and only that one counts the crown.
    """

    ortho: Ortho
    ground: shapely.Geometry
    shapes: Shapes
    centres: Shapes
    rows: npt.NDArray[np.intp]
    classes: tuple[str, ...]

    @cached_property
    def counted(self) -> npt.NDArray[np.bool_]:
        """bool `[N]`: crowns whose centre is labelled."""
        labelled = shapely.dwithin(self.ground, self.centres, ON_LINE_PX)
        return np.asarray(labelled & np.array([c != IGNORED for c in self.classes], dtype=bool))


@dataclass(frozen=True)
class PicturePart:
    """One picture: its window on the raster, its labelled ground (px of the raster), and numbers of the labels that it
    counts (`crowns`) and that it leaves undecided (`ignored`)."""

    ortho: Ortho
    window: Rect
    labelled: shapely.Geometry
    crowns: tuple[int, ...]
    ignored: tuple[int, ...]

    @property
    def hectares(self) -> float:
        return float(self.labelled.area) * (self.ortho.info.gsd_m or 0.0) ** 2 / 1e4


def place(ortho: Ortho, ground: shapely.Geometry, shapes_px: Shapes, rows: npt.NDArray[np.intp],
          classes: Sequence[str]) -> Placed:  # fmt: skip
    """Cut the labels at the raster's edge; those that the cut leaves without area are not there."""
    own = shapes_px[rows]
    whole = shapely.is_valid(own) & shapely.covered_by(own, ortho.frame)
    cut = [
        s if inside else only_polygons(shapely.make_valid(s).intersection(ortho.frame))
        for s, inside in zip(own, whole, strict=True)
    ]
    keep = [k for k, shape in enumerate(cut) if shape is not None]
    shapes = np.array([cut[k] for k in keep], dtype=object)
    box = shapely.bounds(own[keep]).reshape(-1, 4)
    centres = shapely.points((box[:, :2] + box[:, 2:]) / 2)
    return Placed(ortho, ground, shapes, np.asarray(centres), rows[keep], tuple(classes[rows[k]] for k in keep))


def homes(placed: Placed, blocks_px: Shapes) -> npt.NDArray[np.intp]:
    """The block that each label belongs to; -1 where its centre is not labelled. One that lies on the line between
    blocks belongs to the first."""
    return np.where(placed.counted, block_of(list(blocks_px), placed.centres), -1)


def pictures_of(
    placed: Placed, blocks_px: Shapes, own: Sequence[int], home: npt.NDArray[np.intp], *, margin: int, tile_size: int
) -> list[PicturePart]:
    """The pictures of one split on one raster: ground whose parts lie within a tile of each other is one picture.

    Args:
        blocks_px: all blocks. own: numbers of those of the split. home: see `homes`.
        margin: px around the ground that are seen as well.
    """
    region = only_polygons(shapely.union_all(blocks_px[list(own)]).intersection(placed.ground))
    if region is None:
        return []
    parts = np.asarray(shapely.get_parts(region))
    parts = parts[~shapely.is_empty(shapely.buffer(parts, -THINNEST_PX / 2))]
    near = shapely.get_parts(shapely.union_all(parts).buffer(tile_size / 2, join_style="mitre"))
    group = block_of(list(near), np.asarray(shapely.point_on_surface(parts)))
    grounds = [only_polygons(shapely.union_all(parts[group == g])) for g in range(len(near))]
    counted = np.isin(home, np.asarray(own, dtype=np.intp))
    return [_picture(placed, ground, counted, margin) for ground in grounds if ground is not None]


def _picture(placed: Placed, ground: shapely.Geometry, counted: npt.NDArray[np.bool_], margin: int) -> PicturePart:
    shapely.prepare(ground)
    near = np.sort(shapely.STRtree(placed.shapes).query(ground, predicate="intersects"))
    home = counted[near] & shapely.dwithin(ground, placed.centres[near], ON_LINE_PX)
    # a shape that only touches the ground's edge shares nothing with it
    others = near[~home]
    others = others[shapely.area(shapely.intersection(placed.shapes[others], ground)) > 0]
    window = _window(ground, placed.shapes[near[home]], placed.ortho, margin)
    return PicturePart(placed.ortho, window, ground, tuple(near[home].tolist()), tuple(others.tolist()))


def _window(ground: shapely.Geometry, crowns: Shapes, ortho: Ortho, margin: int) -> Rect:
    """The box around the ground, with a margin, and around all of its crowns, within the raster."""
    x0, y0, x1, y1 = ground.bounds
    box = np.array([[x0 - margin, y0 - margin, x1 + margin, y1 + margin], *shapely.bounds(crowns).reshape(-1, 4)])
    left, top = (max(0, math.floor(v)) for v in box[:, :2].min(axis=0))
    right, bottom = np.ceil(box[:, 2:].max(axis=0)).astype(int).tolist()
    return left, top, min(right, ortho.info.width) - left, min(bottom, ortho.info.height) - top
