"""Canopy cover, and where the shade stands: areas of each square of the ground, truth beside prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cabruca.crops import CroppedMasks
from cabruca.ground import Floats, Ground, Ints

Bools = npt.NDArray[np.bool_]
SQUARES_A_SIDE = 8
"""Squares along each side of a picture whose scale is unknown."""

KNOWN, TREE, TREE_TRUE, SHADE, SHADE_TRUE = range(5)
"""Columns of `Squares.areas`."""


@dataclass(frozen=True)
class Squares:
    """What covers each of M squares of a plane, as far as one window or more show it.

    Attributes:
        index: int64 `[M, 2]`, column and row of the square, counted from the plane's origin.
        areas: float64 `[M, 5]`, in squares of the plane's unit: known ground, found and true canopy, found and true
            shade canopy.
        side: `(x, y)` of one square.
    """

    index: Ints
    areas: Floats
    side: tuple[float, float]


@dataclass(frozen=True)
class Cover:
    """bool `[H, W]` each, of one window's core: known ground, canopy and shade canopy, found and true."""

    known: Bools
    tree: Bools
    tree_true: Bools
    shade: Bools
    shade_true: Bools


def square_side(ground: Ground, shade_grid_m: float) -> tuple[float, float]:
    """Side of the squares: `shade_grid_m` in metres, 1/8 of the picture's sides where the scale is unknown."""
    if ground.in_metres:
        return shade_grid_m, shade_grid_m
    height, width = ground.picture_hw_px
    return width / SQUARES_A_SIDE, height / SQUARES_A_SIDE


def squares_of(cover: Cover, ground: Ground, side: tuple[float, float]) -> Squares:
    """Areas of a core in the squares of its plane; each pixel goes where its centre lies.

    Args:
        ground: of the core.
    """
    height, width = cover.known.shape
    a, b, c, d, e, f = ground.affine
    x, y = np.arange(width)[None] + 0.5, np.arange(height)[:, None] + 0.5
    column = np.floor((a * x + b * y + c) / side[0]).astype(np.int64)
    row = np.floor((d * x + e * y + f) / side[1]).astype(np.int64)
    first = np.array([column.min(), row.min()])
    columns = int(column.max() - first[0]) + 1
    square = (row - first[1]) * columns + (column - first[0])
    found = [cover.known, cover.tree, cover.tree_true, cover.shade, cover.shade_true]
    code = sum((layer & cover.known).astype(np.int64) << k for k, layer in enumerate(found))
    rows = int(row.max() - first[1]) + 1
    counts = np.bincount((square * 32 + code).reshape(-1), minlength=rows * columns * 32).reshape(-1, 32)
    bits = (np.arange(32)[:, None] >> np.arange(5)[None]) & 1
    pixels = counts @ bits
    seen = np.flatnonzero(pixels[:, KNOWN] > 0)
    index = np.stack([seen % columns, seen // columns], axis=1) + first
    return Squares(index, pixels[seen] * ground.pixel_area, side)


def join_squares(parts: Sequence[Squares], weights: Sequence[Floats]) -> Squares:
    """Squares of one plane from several windows, each square once.

    Args:
        weights: `[M]` of each part: what its squares count for, below 1 where others show the same ground.
    """
    index, inverse = np.unique(np.concatenate([p.index for p in parts]), axis=0, return_inverse=True)
    areas = np.zeros((len(index), 5))
    own = [p.areas * w[:, None] for p, w in zip(parts, weights, strict=True)]
    np.add.at(areas, inverse.reshape(-1), np.concatenate(own))
    return Squares(index, areas, parts[0].side)


def canopy_metrics(squares: Sequence[Squares]) -> dict[str, float]:
    """`canopy_cover` = canopy area / known area, `canopy_cover_true`, and `canopy_cover_error`, their absolute
    difference (Jennings et al. 1999, "Assessing forest canopies and understorey illumination", Forestry 72(1)).

    NaN where no ground is known; 0 without trees. Plots are pooled by their areas.
    """
    found, true = (cover_share(squares, k) for k in (TREE, TREE_TRUE))
    return {"canopy_cover": found, "canopy_cover_true": true, "canopy_cover_error": abs(found - true)}


def cover_share(squares: Sequence[Squares], column: int) -> float:
    """Area of one column of `Squares.areas` / known area; NaN where no ground is known."""
    total = np.sum([s.areas.sum(axis=0) for s in squares], axis=0) if squares else np.zeros(5)
    return float(total[column] / total[KNOWN]) if total[KNOWN] > 0 else math.nan


def shade_distribution_score(squares: Sequence[Squares]) -> float:
    """1 - total variation distance between where the shade canopy was found and where it is:
    1 - 1/2 * sum_i |p_i - q_i|, p_i and q_i the shares of found and true shade canopy that lie in square i, over the
    squares of all plots (Levin, Peres and Wilmer 2009, "Markov Chains and Mixing Times", proposition 4.2).

    1: the same places. 0: wholly other places, or shade on one side only. 1 also where neither side has shade; NaN
    where no ground is known. Cacao plays no part.
    """
    if not any(s.areas[:, KNOWN].any() for s in squares):
        return math.nan
    areas = np.concatenate([s.areas for s in squares])
    found, true = areas[:, SHADE], areas[:, SHADE_TRUE]
    if found.sum() == 0 or true.sum() == 0:
        return float(found.sum() == true.sum())
    return float(1 - np.abs(found / found.sum() - true / true.sum()).sum() / 2)


def paint(
    shape_hw: tuple[int, int], boxes_xyxy_px: Floats, masks: CroppedMasks | None, *, ellipses: bool = True
) -> Bools:
    """bool `[H, W]`: the union of crowns, each by its mask, else by the ellipse in its box (`ellipses` False: by the
    box)."""
    out = np.zeros(shape_hw, dtype=np.bool_)
    known = np.zeros(len(boxes_xyxy_px), np.bool_) if masks is None else masks.has_mask.numpy()
    for i, box in enumerate(boxes_xyxy_px.tolist()):
        if known[i] and masks is not None:
            x, y, pixels = masks.crop(i)
            crop = pixels.numpy() > 0
        else:
            x, y, crop = _box_crop(box, ellipses)
        x0, y0 = max(x, 0), max(y, 0)
        x1, y1 = min(x + crop.shape[1], shape_hw[1]), min(y + crop.shape[0], shape_hw[0])
        if x1 > x0 and y1 > y0:
            out[y0:y1, x0:x1] |= crop[y0 - y : y1 - y, x0 - x : x1 - x]
    return out


def _box_crop(box: Sequence[float], ellipse: bool) -> tuple[int, int, Bools]:
    x0, y0, x1, y1 = box
    x, y = math.floor(x0), math.floor(y0)
    columns = np.arange(x, math.ceil(x1))[None] + 0.5
    rows = np.arange(y, math.ceil(y1))[:, None] + 0.5
    if not ellipse:
        return x, y, np.ones((rows.shape[0], columns.shape[1]), dtype=np.bool_)
    across = ((columns - (x0 + x1) / 2) / max((x1 - x0) / 2, 1e-9)) ** 2
    down = ((rows - (y0 + y1) / 2) / max((y1 - y0) / 2, 1e-9)) ** 2
    return x, y, np.asarray(across + down <= 1)
