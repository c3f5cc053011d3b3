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

    Equally close pairs go by their numbers.
    """
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    near = cKDTree(a).sparse_distance_matrix(cKDTree(b), reach, output_type="ndarray")
    order = np.lexsort((near["j"], near["i"], near["v"]))
    rows, columns = near["i"][order].tolist(), near["j"][order].tolist()
    free_a, free_b = bytearray(b"\x01") * len(a), bytearray(b"\x01") * len(b)
    chosen = []
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        if free_a[i] and free_b[j]:
            free_a[i] = free_b[j] = 0
            chosen.append(k)
    best = near[order[chosen]]
    return best["i"].astype(np.int64), best["j"].astype(np.int64), best["v"].astype(np.float64)


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else NAN
