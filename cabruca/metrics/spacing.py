"""How trees stand towards each other: neighbours, clustering, room for each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
from scipy.spatial import cKDTree
from shapely.geometry.base import BaseGeometry

from cabruca.ground import Floats

CLUSTERED, UNIFORM = 0.8, 1.2
"""Clark-Evans indices below and above which trees stand clustered and evenly."""

RIPLEY_AT = {"near": 0.75, "middle": 1.5, "far": 2.5}
"""Distances of Ripley's L in mean spacings; between the distances of a square lattice (1, 1.41, 2, 2.24, 2.83)."""

NAN = math.nan
Stand = tuple[Floats, BaseGeometry]
"""Trees `[N, 2]` of one plot, and its ground."""


def nearest_neighbours(xy: Floats) -> Floats:
    """Distance `[N]` of each tree to the nearest other one, by a k-d tree; empty with fewer than two trees."""
    if len(xy) < 2:
        return np.zeros(0)
    if _all_apart(xy):
        return np.asarray(cKDTree(xy).query(xy, k=2)[0][:, 1])
    # a k-d tree cannot part trees at one place, and would compare each with all of them
    places, at, count = np.unique(xy, axis=0, return_inverse=True, return_counts=True)
    if len(places) == 1:
        return np.zeros(len(xy))
    alone = cKDTree(places).query(places, k=2)[0][:, 1]
    return np.asarray(np.where(count > 1, 0.0, alone)[at.reshape(-1)])


def neighbour_metrics(stands: Sequence[Stand], areas: Sequence[float] | None = None) -> dict[str, float]:
    """`nearest_neighbour_mean` (the plane's unit), `nearest_neighbour_cv`, `clark_evans`, `clark_evans_z` and
    `clark_evans_pattern`.

    mean: over all trees of all plots. cv: standard deviation of (distance / mean of its plot), so that a difference
    between plots is no irregularity. Clark-Evans: R = sum n_i * r_i / sum n_i * E_i over the plots, r_i the mean
    nearest-neighbour distance, z = sum n_i (r_i - E_i) / sqrt(sum (n_i * SE_i)^2), with, for n trees on area A with
    perimeter L (Clark and Evans 1954, Ecology 35(4); edge correction of Donnelly 1978),

        E = 0.5 sqrt(A / n) + (0.0514 + 0.041 / sqrt(n)) L / n,   SE = sqrt(0.0703 A / n^2 + 0.037 L sqrt(A / n^5)).

    pattern: -1 clustered (R < 0.8), 1 uniform (R > 1.2), else 0 random. A plot with fewer than two trees adds nothing;
    NaN where no plot has two.

    Args:
        areas: A of each plot; None: of its outline.
    """
    nearest = [(nearest_neighbours(xy), domain, area) for (xy, domain), area in _on_ground(stands, areas)]
    known = [(d, domain, area) for d, domain, area in nearest if len(d)]
    names = ("nearest_neighbour_mean", "nearest_neighbour_cv", "clark_evans", "clark_evans_z", "clark_evans_pattern")
    if not known:
        return dict.fromkeys(names, NAN)
    total = expected = variance = 0.0
    for d, domain, area in known:
        n, length = len(d), domain.length
        total += float(d.sum())
        expected += n * (0.5 * math.sqrt(area / n) + (0.0514 + 0.041 / math.sqrt(n)) * length / n)
        variance += n**2 * (0.0703 * area / n**2 + 0.037 * length * math.sqrt(area / n**5))
    index = total / expected
    values = (
        total / sum(len(d) for d, _, _ in known),
        _spread([d for d, _, _ in known]),
        index,
        (total - expected) / math.sqrt(variance),
        float((index > UNIFORM) - (index < CLUSTERED)),
    )
    return dict(zip(names, values, strict=True))


def _on_ground(stands: Sequence[Stand], areas: Sequence[float] | None) -> list[tuple[Stand, float]]:
    """Stands with a ground that has an area, and that area."""
    own = [domain.area for _, domain in stands] if areas is None else areas
    return [(s, area) for s, area in zip(stands, own, strict=True) if s[1].area > 0 and area > 0]


def ripley_metrics(stands: Sequence[Stand], areas: Sequence[float] | None = None) -> dict[str, float]:
    """`ripley_l_near`, `_middle`, `_far`: L(r) / r with L(r) = sqrt(K(r) / pi), at r = 0.75, 1.5 and 2.5 mean spacings
    sqrt(A / n) of the plot; 1 = random, above = clustered, below = even.

    K is Ripley's (1977, J. R. Stat. Soc. B 39(2)), Besag's L; border correction (Ripley 1988, "Statistical Inference
    for Spatial Processes"): only trees that stand r or more from the plot's edge are centres. Pooled over plots:
    (L / r)^2 = sum of neighbours within r / sum of m (n - 1) / A * pi r^2, m = number of centres. NaN without centres.

    Args:
        areas: A of each plot; None: of its outline.
    """
    out = {}
    known = _on_ground(stands, areas)
    inner = [_edge_distance(xy, domain) for (xy, domain), _ in known]
    trees = [cKDTree(xy) if _all_apart(xy) else None for (xy, _), _ in known]
    for name, spacings in RIPLEY_AT.items():
        seen = expected = 0.0
        for ((xy, _), area), edge, tree in zip(known, inner, trees, strict=True):
            if len(xy) < 2:
                continue
            r = spacings * math.sqrt(area / len(xy))
            centres = xy[edge >= r]
            if len(centres) == 0:
                continue
            seen += _pairs_within(centres, xy, r) if tree is None else float(cKDTree(centres).count_neighbors(tree, r))
            seen -= len(centres)
            expected += len(centres) * (len(xy) - 1) / area * math.pi * r**2
        out[f"ripley_l_{name}"] = math.sqrt(seen / expected) if expected else NAN
    return out


def _all_apart(xy: Floats) -> bool:
    """Whether no two trees stand at one place."""
    return len(np.unique(xy[:, 0] + 1j * xy[:, 1])) == len(xy)


def _pairs_within(centres: Floats, xy: Floats, r: float) -> float:
    """Pairs of a centre and a tree up to r apart, a centre with itself among them; for trees at one place."""
    places, count = np.unique(xy, axis=0, return_counts=True)
    own, own_count = np.unique(centres, axis=0, return_counts=True)
    return float(cKDTree(own).count_neighbors(cKDTree(places), r, weights=(own_count, count)))


def _edge_distance(xy: Floats, domain: BaseGeometry) -> Floats:
    """Distance `[N]` to the plot's edge, below 0 outside."""
    if len(xy) < 2:
        return np.zeros(len(xy))
    shapely.prepare(domain)
    points = shapely.points(xy)
    lines = shapely.get_parts(shapely.boundary(domain))
    pieces = np.concatenate([_segments(line) for line in lines])
    distance = shapely.STRtree(pieces).query_nearest(points, return_distance=True, all_matches=False)[1]
    return np.asarray(np.where(shapely.covers(domain, points), distance, -distance))


def _segments(line: BaseGeometry) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    corners = shapely.get_coordinates(line)
    return np.asarray(shapely.linestrings(np.stack([corners[:-1], corners[1:]], axis=1)))


def voronoi_metrics(stands: Sequence[Stand]) -> dict[str, float]:
    """`voronoi_cv`: standard deviation of (area of a tree's Voronoi cell / mean of its plot), cells clipped at the
    plot's edge (Duyckaerts and Godefroy 2000, J. Chem. Neuroanat. 20: 0 on a lattice, about 0.53 at random). NaN where
    no plot has two trees."""
    areas = [voronoi_areas(xy, domain) for xy, domain in stands if domain.area > 0]
    known = [a for a in areas if len(a) > 1 and a.sum() > 0]
    return {"voronoi_cv": _spread(known) if known else NAN}


def voronoi_areas(xy: Floats, domain: BaseGeometry) -> Floats:
    """Areas of the Voronoi cells inside `domain`, in no order; trees at one place share a cell."""
    origin = shapely.get_coordinates(domain.centroid)[0] if domain.area > 0 else np.zeros(2)
    places = np.unique(xy - origin, axis=0)
    if len(places) < 2:
        return np.full(len(places), domain.area)
    ground = shapely.transform(domain, lambda corners: corners - origin)
    along = _along_line(places)
    if along is not None:
        return _strip_areas(*along, ground)
    cells = shapely.get_parts(shapely.voronoi_polygons(shapely.multipoints(places), extend_to=ground))
    areas = shapely.area(cells)
    shapely.prepare(ground)
    outer = ~shapely.contains_properly(ground, cells)
    areas[outer] = shapely.area(shapely.intersection(cells[outer], ground))
    return np.asarray(areas)


def _along_line(places: Floats) -> tuple[Floats, Floats] | None:
    """Positions `[N]`, rising, and direction `[2]` of places on one line through the origin's neighbourhood; None of
    others. GEOS takes time in n^2 for the diagram of such places."""
    offset = places - places.mean(axis=0)
    far = offset[np.argmax(np.abs(offset).sum(axis=1))]
    direction = far / np.hypot(*far)
    off = offset @ np.array([-direction[1], direction[0]])
    if np.abs(off).max() > 1e-9 * np.hypot(*far):
        return None
    return np.sort(places @ direction), direction


def _strip_areas(position: Floats, direction: Floats, ground: BaseGeometry) -> Floats:
    """Areas of the cells of places on a line: strips across it, cut at the middles between neighbours."""
    turn = np.array([[direction[0], -direction[1]], [direction[1], direction[0]]])
    flat = shapely.transform(ground, lambda corners: corners @ turn)
    x0, y0, x1, y1 = flat.bounds
    edges = np.concatenate([[min(x0, position[0])], (position[1:] + position[:-1]) / 2, [max(x1, position[-1])]])
    strips = shapely.box(edges[:-1], y0, edges[1:], y1)
    return np.asarray(shapely.area(shapely.intersection(strips, flat)))


def _spread(values: Sequence[Floats]) -> float:
    """Standard deviation of all values, each divided by the mean of its own group."""
    relative = [v / v.mean() for v in values if v.mean() > 0]
    return float(np.concatenate(relative).std()) if relative else NAN
