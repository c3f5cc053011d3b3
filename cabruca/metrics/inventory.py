"""Found crowns beside the trees that people counted on the ground."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from scipy.spatial import cKDTree

from cabruca.ground import Floats, Ints, Inventory
from cabruca.metrics.plots import Plot

RADII_M = {"0_5_m": 0.5, "1_m": 1.0, "2_m": 2.0, "5_m": 5.0}
"""Distances that shares of the inventory are given for; beyond the largest nothing is the same tree."""

CROWDED = 40
"""Pairs within reach for each point, from which on they are not listed."""

NAN = math.nan


def inventory_metrics(plots: Sequence[Plot], inventory: Mapping[str, Inventory]) -> dict[str, float]:
    """`inventory_trees`, `inventory_detection_rate`, `inventory_position_error_m`, `..._median_m`,
    `inventory_species_agreement`, `inventory_diameter_mae_m` and `inventory_within_<0_5|1|2|5>_m`; plots pooled.

    Inventory trees on the plots take part. Trees and found crowns are paired closest first, one to one, up to 5 m
    between the positions (greedy, as field lists are matched to crown maps by Eysn et al. 2015, Forests 6(5)).
    detection rate = paired / inventory trees; position error = mean and median distance of the pairs; species agreement
    = pairs of one species / pairs; diameter: mean absolute difference over the pairs whose diameter was measured;
    within r = inventory trees with a pair at r or nearer / inventory trees. NaN without inventory trees, or pairs.

    Args:
        inventory: plane -> the whole inventory on that plane.
    """
    trees = 0
    distance, same, diameter = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for plot in plots:
        if plot.plane not in inventory:
            continue
        own = on_plot(inventory[plot.plane], plot)
        trees += len(own)
        i, j, d = closest_pairs(own.xy_m, plot.found.xy, max(RADII_M.values()))
        distance.append(d)
        same.append((own.labels[i] == plot.found.labels[j]).astype(np.float64))
        diameter.append(np.abs(own.diameter_m[i] - plot.found.diameter[j]))
    gaps, agree, widths = (np.concatenate(v) for v in (distance, same, diameter))
    widths = widths[~np.isnan(widths)]
    return {
        "inventory_trees": float(trees),
        "inventory_detection_rate": len(gaps) / trees if trees else NAN,
        "inventory_position_error_m": _mean(gaps),
        "inventory_position_error_median_m": float(np.median(gaps)) if len(gaps) else NAN,
        "inventory_species_agreement": _mean(agree),
        "inventory_diameter_mae_m": _mean(widths),
        **{
            f"inventory_within_{name}": float((gaps <= r).sum()) / trees if trees else NAN
            for name, r in RADII_M.items()
        },
    }


def on_plot(inventory: Inventory, plot: Plot) -> Inventory:
    """The trees of the inventory that stand on the plot."""
    shapely.prepare(plot.domain)
    here = shapely.intersects_xy(plot.domain, inventory.xy_m)
    return Inventory(inventory.labels[here], inventory.xy_m[here], inventory.diameter_m[here])


def closest_pairs(a: Floats, b: Floats, reach: float) -> tuple[Ints, Ints, Floats]:
    """Pairs of points `[N, 2]` and `[M, 2]`, one to one, the closest first, up to `reach` apart, and their distances.

    Equally close pairs go by their numbers. Where so many are near each other that a list of all pairs would be long,
    as where trees were entered at one place, the same is done in rounds.
    """
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    tree_a, tree_b = cKDTree(a), cKDTree(b)
    if tree_a.count_neighbors(tree_b, reach) > CROWDED * (len(a) + len(b)):
        return _in_rounds(a, b, reach)
    near = tree_a.sparse_distance_matrix(tree_b, reach, output_type="ndarray")
    best = near[_greedy(near["i"], near["j"], near["v"])]
    return best["i"].astype(np.int64), best["j"].astype(np.int64), best["v"].astype(np.float64)


def _in_rounds(a: Floats, b: Floats, reach: float) -> tuple[Ints, Ints, Floats]:
    """Round by round the points and places of which each is the other's nearest, and all of the smallest distance. A
    place where several points of the one side are takes as many of those it is the nearest to, the closest first."""
    if len(np.unique(a, axis=0)) < len(np.unique(b, axis=0)):
        j, i, d = _in_rounds(b, a, reach)
        return i, j, d
    left_a, left_b = np.arange(len(a)), np.arange(len(b))
    found = [(left_a[:0], left_b[:0], np.zeros(0))]
    while len(left_a) and len(left_b):
        places, order, first, count = _places(b[left_b])
        own, at = np.unique(a[left_a], axis=0, return_inverse=True)
        at = at.reshape(-1)
        distance, nearest = cKDTree(places).query(own)
        mutual = cKDTree(own).query(places)[1][nearest] == np.arange(len(own))
        # equal distances may go round in a circle without any mutual pair
        good = (mutual | (count[nearest] > 1) | (distance <= distance.min())) & (distance <= reach)
        d, to = distance[at], nearest[at]
        rows = np.flatnonzero(good[at])
        rows = rows[np.lexsort((rows, d[rows], to[rows]))]
        turn = np.arange(len(rows)) - np.searchsorted(to[rows], to[rows])
        rows, turn = rows[turn < count[to[rows]]], turn[turn < count[to[rows]]]
        if len(rows) == 0:
            break
        j = order[first[to[rows]] + turn]
        found.append((left_a[rows], left_b[j], d[rows]))
        left_a, left_b = np.delete(left_a, rows), np.delete(left_b, j)
    i, j, d = (np.concatenate([f[k] for f in found]) for k in range(3))
    return i, j, d


def _places(xy: Floats) -> tuple[Floats, Ints, Ints, Ints]:
    """The different places, the points place after place, and where in that order each place begins and how many it
    has."""
    places, at, count = np.unique(xy, axis=0, return_inverse=True, return_counts=True)
    return places, np.argsort(at.reshape(-1), kind="stable"), np.cumsum(count) - count, count


def _greedy(rows: Ints, columns: Ints, distance: Floats) -> Ints:
    """Numbers of the pairs that are left when each row and column is taken once, the closest first."""
    order = np.lexsort((columns, rows, distance))
    used_rows, used_columns, chosen = set(), set(), []
    for k, i, j in zip(order.tolist(), rows[order].tolist(), columns[order].tolist(), strict=True):
        if i not in used_rows and j not in used_columns:
            used_rows.add(i)
            used_columns.add(j)
            chosen.append(k)
    return np.array(chosen, dtype=np.int64)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else NAN
