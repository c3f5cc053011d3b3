"""The validation area as plots: pieces of ground on one plane, with all their trees, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from cabruca.metrics.canopy import Squares, join_squares
from cabruca.metrics.matching import box_iou, box_shares, overlapping
from cabruca.metrics.survey import Survey
from cabruca.metrics.trees import Trees

SAME_SHARE = 0.5
"""Crowns of different pictures are one tree from this IoU on; where one was cut, from this share of the smaller."""


@dataclass(frozen=True)
class Plot:
    """One connected piece of ground.

    Attributes:
        plane, in_metres: see `Ground`. found, true: its trees. domain: its known ground, on the plane.
    """

    plane: str
    in_metres: bool
    found: Trees
    true: Trees
    domain: BaseGeometry


def make_plots(surveys: Sequence[Survey]) -> list[Plot]:
    """Windows that touch on one plane form a plot; a tree that several pictures show counts once.

    Returns:
        Plots in the order of their first windows.
    """
    out: list[Plot] = []
    for plane in dict.fromkeys(s.ground.plane for s in surveys):
        own = [s for s in surveys if s.ground.plane == plane]
        shapes = [_shape(s) for s in own]
        part = _touching(shapes, min(s.ground.pixel_side for s in own) / 2)
        for k in range(int(part.max()) + 1):
            out.append(
                _plot([own[i] for i in np.flatnonzero(part == k)], [shapes[i] for i in np.flatnonzero(part == k)])
            )
    return out


def squares_of_planes(surveys: Sequence[Survey]) -> list[Squares]:
    """The squares of each plane, every one once."""
    planes = dict.fromkeys(s.ground.plane for s in surveys)
    return [join_squares([s.squares for s in surveys if s.ground.plane == plane]) for plane in planes]


def _shape(survey: Survey) -> BaseGeometry:
    return shapely.union_all(shapely.polygons(survey.outline))


def _touching(shapes: Sequence[BaseGeometry], gap: float) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Number of the connected piece that each shape is part of; shapes up to `gap` apart touch."""
    a, b = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=gap)
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(shapes),) * 2)
    found: np.ndarray[tuple[int], np.dtype[np.int32]] = connected_components(graph, directed=False)[1]
    return found


def _plot(surveys: Sequence[Survey], shapes: Sequence[BaseGeometry]) -> Plot:
    ground = surveys[0].ground
    whole = shapes[0] if len(shapes) == 1 else _without_slits(shapes, ground.pixel_side / 2)
    grain = max(s.grain for s in surveys)
    return Plot(
        ground.plane,
        ground.in_metres,
        once(Trees.join([s.found for s in surveys])),
        once(Trees.join([s.true for s in surveys])),
        # the steps of the cells that unknown ground is drawn with would lengthen a slanted edge
        whole.simplify(grain) if grain else whole,
    )


def _without_slits(shapes: Sequence[BaseGeometry], gap: float) -> BaseGeometry:
    """Union of shapes that touch; rounding leaves slits between pictures, and a slit would count as an edge."""
    wide = shapely.union_all([s.buffer(gap, join_style="mitre") for s in shapes])
    return wide.buffer(-gap, join_style="mitre")


def once(trees: Trees) -> Trees:
    """Without the trees that another picture of the same ground shows better.

    Two crowns of different pictures are one tree when their boxes' IoU is 0.5 or more, or when one of them was cut at
    its picture's edge and half of the smaller lies in the other. The surer one stays; of equally sure ones the larger.
    """
    if len(np.unique(trees.picture)) < 2:
        return trees
    a, b = overlapping(trees, trees)
    other = (a < b) & (trees.picture[a] != trees.picture[b])
    a, b = a[other], b[other]
    both, smaller = box_shares(trees.boxes[a], trees.boxes[b])
    cut = (trees.cut[a] | trees.cut[b]) & (both >= SAME_SHARE * smaller)
    same = cut | (box_iou(trees.boxes[a], trees.boxes[b]) >= SAME_SHARE)
    a, b = a[same], b[same]
    rank = np.empty(len(trees), dtype=np.int64)
    rank[np.lexsort((-trees.area, -trees.scores))] = np.arange(len(trees))
    better, worse = np.where(rank[a] < rank[b], a, b), np.where(rank[a] < rank[b], b, a)
    keep = np.ones(len(trees), dtype=np.bool_)
    for k in np.lexsort((rank[worse], rank[better])).tolist():
        if keep[better[k]]:
            keep[worse[k]] = False
    return trees.select(keep)
