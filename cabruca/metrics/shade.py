"""Cacao and its shade: how many shade trees, and how near they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from cabruca.ground import Floats

NAN = math.nan


def shade_metrics(cacao: Sequence[Floats], shade: Sequence[Floats], radius: float) -> dict[str, float]:
    """`shade_to_cacao_ratio`, `cacao_in_shade_share` and `shade_distance_mean`, all plots pooled.

    ratio = shade trees / cacao trees, NaN without cacao. Distances run between crown centres, from each cacao tree to
    the nearest shade tree of its plot (k-d tree). share = cacao with a shade tree within `radius` / cacao: 0 without
    shade trees, NaN without cacao, or where the radius is NaN. mean: over the cacao whose plot has a shade tree, NaN
    without any. Shade radius: Beer et al. 1998, "Shade management in coffee and cacao plantations", Agroforestry
    Systems 38.

    Args:
        cacao, shade: `[N, 2]` centres, a plot each, in one unit. radius: in that unit, NaN where it has no meaning.
    """
    trees, shades = sum(map(len, cacao)), sum(map(len, shade))
    distances = [cKDTree(s).query(c)[0] for c, s in zip(cacao, shade, strict=True) if len(c) and len(s)]
    near = np.concatenate([np.zeros(0), *distances])
    covered = sum(float(near_shade(c, s, radius).sum()) for c, s in zip(cacao, shade, strict=True))
    known = trees > 0 and not math.isnan(radius)
    return {
        "shade_to_cacao_ratio": shades / trees if trees else NAN,
        "cacao_in_shade_share": covered / trees if known else NAN,
        "shade_distance_mean": float(near.mean()) if len(near) else NAN,
    }


def near_shade(cacao: Floats, shade: Floats, radius: float) -> npt.NDArray[np.bool_]:
    """bool `[N]`: cacao trees with a shade tree within `radius`."""
    if len(cacao) == 0 or len(shade) == 0:
        return np.zeros(len(cacao), dtype=np.bool_)
    return np.asarray(cKDTree(shade).query(cacao)[0] <= radius)
