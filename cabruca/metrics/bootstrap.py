"""How sure a ratio of sums over tiles is: the percentile bootstrap (Efron 1979, Annals of Statistics 7(1))."""

from __future__ import annotations

import numpy as np

from cabruca.ground import Floats

DRAWS = 2000
LEVEL = 0.95
LEAST_TILES = 5
"""Fewer tiles say nothing of how they differ."""

Interval = tuple[float, float]


def ratio_interval(part: Floats, whole: Floats, *, seed: int = 0) -> Interval:
    """The 95 % interval of `part.sum() / whole.sum()` when as many tiles are drawn anew with replacement; NaN with
    fewer than five tiles. Tiles are taken to be independent: neighbours that are alike make it too narrow.

    Args:
        part, whole: `[T]`, a tile each.
    """
    keep = np.isfinite(part) & np.isfinite(whole) & ((whole > 0) | (part > 0))
    part, whole = part[keep], whole[keep]
    n = len(part)
    if n < LEAST_TILES:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float64)
    above, below = drawn @ part, drawn @ whole
    ratios = above[below > 0] / below[below > 0]
    if len(ratios) < DRAWS // 2:
        return float("nan"), float("nan")
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
