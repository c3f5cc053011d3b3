"""The validation area as plots: pieces of ground on one plane, with all their trees, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from shapely.geometry.base import BaseGeometry

from cabruca.ground import Floats
from cabruca.metrics.canopy import Squares, join_squares
from cabruca.metrics.once import once
from cabruca.metrics.survey import Survey
from cabruca.metrics.trees import Trees

SMOOTH_CELLS = 0.75
"""Cells that the outline of unknown ground may be smoothed by: more than the half diagonal of the steps of one."""


@dataclass(frozen=True)
class Plot:
    """One connected piece of ground.

    Attributes:
        plane, in_metres: see `Ground`. found, true: its trees. domain: its known ground, on the plane.
        area: of its known pixels; where they are scattered, the domain's outline is rougher than this.
    """

    plane: str
    in_metres: bool
    found: Trees
    true: Trees
    domain: BaseGeometry
    area: float


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
    """The squares of each plane, every one once, and ground that several pictures show once in each."""
    out = []
    for plane in dict.fromkeys(s.ground.plane for s in surveys):
        own = [s for s in surveys if s.ground.plane == plane]
        out.append(join_squares([s.squares for s in own], _weights(own)))
    return out


def _weights(surveys: Sequence[Survey]) -> list[Floats]:
    """Of each survey's squares: area of the ground in that square / sum of what each survey shows of it."""
    lengths = [len(s.squares.index) for s in surveys]
    owner = np.repeat(np.arange(len(surveys)), lengths)
    squares, square = np.unique(np.concatenate([s.squares.index for s in surveys]), axis=0, return_inverse=True)
    square = square.reshape(-1)
    pictures = np.unique([s.ground.picture for s in surveys], return_inverse=True)[1][owner]
    in_square = np.unique(np.stack([square, pictures], axis=1), axis=0)[:, 0]
    several = np.bincount(in_square, minlength=len(squares)) > 1
    weight = np.ones(len(owner))
    rows = np.flatnonzero(several[square])
    if len(rows):
        corner = squares[square[rows]] * np.array(surveys[0].squares.side)
        boxes = shapely.box(*corner.T, *(corner + surveys[0].squares.side).T)
        shapes = np.array([_shape(s) for s in surveys], dtype=np.object_)
        pieces = shapely.intersection(boxes, shapes[owner[rows]])
        order = np.argsort(square[rows], kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(square[rows][order])) + 1):
            total = float(shapely.area(pieces[group]).sum())
            weight[rows[group]] = float(shapely.union_all(pieces[group]).area) / total if total > 0 else 1.0
    return np.split(weight, np.cumsum(lengths)[:-1])


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
    known, drawn = sum(s.known_area for s in surveys), sum(s.area for s in shapes)
    return Plot(
        ground.plane,
        ground.in_metres,
        once(Trees.join([s.found for s in surveys])),
        once(Trees.join([s.true for s in surveys])),
        # the steps of the cells that unknown ground is drawn with would lengthen a slanted edge
        whole.simplify(SMOOTH_CELLS * grain) if grain else whole,
        # what pictures share is known by their outlines only
        known * (whole.area / drawn if len({s.ground.picture for s in surveys}) > 1 and drawn > 0 else 1.0),
    )


def _without_slits(shapes: Sequence[BaseGeometry], gap: float) -> BaseGeometry:
    """Union of shapes that touch; rounding leaves slits between pictures, and a slit would count as an edge."""
    wide = shapely.union_all([s.buffer(gap, join_style="mitre") for s in shapes])
    return wide.buffer(-gap, join_style="mitre")
