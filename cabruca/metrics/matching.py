"""Which found crown is which true crown, and what follows: species, crown overlap, crown diameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import shapely
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from cabruca.ground import Floats, Ints
from cabruca.metrics.trees import Stencil, Trees

MATCH_IOU = 0.5
"""Two crowns are the same tree from this intersection over union on."""

DENSE_UP_TO = 200
"""Crowns on the larger side of a component that are still matched by a table of all with all."""

QUARTILES = ("q25", "median", "q75")
NAN = math.nan


@dataclass(frozen=True)
class Matches:
    """M pairs: int64 `[M]` numbers of found and of true trees, and their IoU `[M]`."""

    found: Ints
    true: Ints
    iou: Floats

    def __len__(self) -> int:
        return len(self.iou)


def overlapping(a: Trees, b: Trees) -> tuple[Ints, Ints]:
    """Numbers of all pairs whose boxes touch, found with a packed R-tree (Leutenegger et al. 1997): n log n."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    others = shapely.box(*b.boxes.T)
    rows, columns = shapely.STRtree(others).query(others if a is b else shapely.box(*a.boxes.T))
    return rows.astype(np.int64), columns.astype(np.int64)


def box_shares(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Intersection of boxes `[..., 4]`, pair by pair, and the areas of the smaller ones, both `[...]`."""
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    return np.asarray(sides.prod(axis=-1)), np.minimum(_areas(a), _areas(b))


def box_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union `[...]` of boxes `[..., 4]`, pair by pair; of `[N, 1, 4]` and `[M, 4]` all with all."""
    both, _ = box_shares(a, b)
    either = _areas(a) + _areas(b) - both
    return np.asarray(np.divide(both, either, out=np.zeros_like(both), where=either > 0))


def _areas(boxes: Floats) -> Floats:
    return np.asarray((boxes[..., 2:] - boxes[..., :2]).prod(axis=-1))


def crown_iou(a: Trees, b: Trees, rows: Ints, columns: Ints) -> Floats:
    """IoU of pairs: of the masks where both have one in the same picture, else of the boxes."""
    out = box_iou(a.boxes[rows], b.boxes[columns])
    masked = a.masked[rows] & b.masked[columns]
    masked &= a.picture[rows] == b.picture[columns]
    pairs = np.flatnonzero(masked)
    out[pairs] = _mask_iou(a.stencils[rows[pairs]], b.stencils[columns[pairs]])
    return out


def _mask_iou(a: npt.NDArray[np.object_], b: npt.NDArray[np.object_]) -> Floats:
    """IoU of masks pair by pair, 0 where it is below `MATCH_IOU` already by what their rectangles share."""
    out = np.zeros(len(a))
    if len(a) == 0:
        return out
    left, right = (np.array([s[:5] for s in side], dtype=np.float64) for side in (a, b))
    boxes = [np.concatenate([v[:, :2], v[:, :2] + v[:, 2:4]], axis=1) for v in (left, right)]
    most = np.minimum(box_shares(boxes[0], boxes[1])[0], np.minimum(left[:, 4], right[:, 4]))
    for k in np.flatnonzero(most >= MATCH_IOU * (left[:, 4] + right[:, 4] - most)).tolist():
        out[k] = stencil_iou(a[k], b[k])
    return out


def stencil_iou(a: Stencil, b: Stencil) -> float:
    """IoU of two masks of one picture."""
    if a[:5] == b[:5] and np.array_equal(a.bits, b.bits):
        return 1.0
    x0, y0 = max(a.x, b.x), max(a.y, b.y)
    x1, y1 = min(a.x + a.width, b.x + b.width), min(a.y + a.height, b.y + b.height)
    if x1 <= x0 or y1 <= y0:
        return 0.0
    left = a.dense()[y0 - a.y : y1 - a.y, x0 - a.x : x1 - a.x]
    right = b.dense()[y0 - b.y : y1 - b.y, x0 - b.x : x1 - b.x]
    shared = int((left & right).sum())
    return shared / (a.pixels + b.pixels - shared)


def match_crowns(found: Trees, true: Trees) -> Matches:
    """The one-to-one matching of the largest summed IoU among pairs of IoU >= 0.5, whatever their species (Kuhn 1955,
    "The Hungarian method for the assignment problem"), solved in each connected component of the overlap graph."""
    rows, columns = overlapping(found, true)
    iou = crown_iou(found, true, rows, columns)
    good = iou >= MATCH_IOU - 1e-12
    rows, columns, iou = rows[good], columns[good], iou[good]
    chosen = best_pairs(rows, columns, iou, (len(found), len(true)))
    return Matches(rows[chosen], columns[chosen], iou[chosen])


def best_pairs(rows: Ints, columns: Ints, gain: Floats, shape: tuple[int, int]) -> Ints:
    """Numbers of the pairs of the one-to-one matching of the largest summed gain, in rising order.

    Args:
        rows, columns, gain: `[P]`, candidate pairs of gain > 0. shape: how many there are on each side.
    """
    alone = (np.bincount(rows, minlength=shape[0])[rows] == 1) & (
        np.bincount(columns, minlength=shape[1])[columns] == 1
    )
    rest = np.flatnonzero(~alone)
    if len(rest) == 0:
        return np.flatnonzero(alone)
    graph = coo_matrix((np.ones(len(rest)), (rows[rest], columns[rest] + shape[0])), shape=(sum(shape),) * 2)
    part = connected_components(graph, directed=False)[1][rows[rest]]
    order = np.argsort(part, kind="stable")
    groups = np.split(rest[order], np.flatnonzero(np.diff(part[order])) + 1)
    chosen = [_assign(g, rows[g], columns[g], gain[g]) for g in groups]
    return np.sort(np.concatenate([np.flatnonzero(alone), *chosen]))


def _assign(numbers: Ints, rows: Ints, columns: Ints, gain: Floats) -> Ints:
    own_rows, i = np.unique(rows, return_inverse=True)
    own_columns, j = np.unique(columns, return_inverse=True)
    if max(len(own_rows), len(own_columns)) > DENSE_UP_TO:
        return _assign_sparse(numbers, i, j, gain, (len(own_rows), len(own_columns)))
    table = np.zeros((len(own_rows), len(own_columns)))
    pair = np.full(table.shape, -1, dtype=np.int64)
    table[i, j], pair[i, j] = gain, numbers
    best = pair[linear_sum_assignment(table, maximize=True)]
    return np.asarray(best[best >= 0])


def _assign_sparse(numbers: Ints, i: Ints, j: Ints, gain: Floats, shape: tuple[int, int]) -> Ints:
    """As the table does, by Jonker and Volgenant's method on the pairs alone (LAPJVsp). It matches every row: a column
    for each row stands for no partner, at a gain of 0."""
    n, m = shape
    rows, columns = np.concatenate([i, np.arange(n)]), np.concatenate([j, m + np.arange(n)])
    # entries of 0 would count as none, and all matchings have n of them
    costs = np.concatenate([1.0 + gain.max() - gain, np.full(n, 1.0 + gain.max())])
    graph = coo_matrix((costs, (rows, columns)), shape=(n, m + n)).tocsr()
    left, right = min_weight_full_bipartite_matching(graph)
    pair = coo_matrix((numbers + 1, (i, j)), shape=(n, m + n)).tocsr()
    best = np.asarray(pair[left, right]).reshape(-1) - 1
    return np.asarray(best[best >= 0], dtype=np.int64)


def species_metrics(
    found: Ints, true: Ints, pairs: Sequence[tuple[Ints, Ints]], names: Sequence[str]
) -> dict[str, float]:
    """`species_accuracy`, and `<species>_precision`, `_recall`, `_f1`; all plots pooled.

    species_accuracy = matched pairs of one species / matched pairs. With TP the matched pairs whose both sides are the
    species: precision = TP / found of it, recall = TP / true of it, F1 = 2 TP / (found + true) (van Rijsbergen 1979,
    "Information Retrieval"). NaN where the denominator is 0.

    Args:
        found, true: int64 labels of all trees. pairs: labels (found, true) of the matched ones, a plot each.
    """
    left, right = (np.concatenate([np.zeros(0, np.int64), *(p[side] for p in pairs)]) for side in (0, 1))
    out = {"species_accuracy": _ratio(int((left == right).sum()), len(left))}
    for label, name in enumerate(names, 1):
        short = name.removesuffix("_tree")
        hit = int(((left == label) & (right == label)).sum())
        n_found, n_true = int((found == label).sum()), int((true == label).sum())
        out[f"{short}_precision"], out[f"{short}_recall"] = _ratio(hit, n_found), _ratio(hit, n_true)
        out[f"{short}_f1"] = _ratio(2 * hit, n_found + n_true)
    return out


def overlap_metrics(iou: Floats) -> dict[str, float]:
    """`crown_iou_mean`, `_q25`, `_median`, `_q75` of the matched pairs (all >= 0.5); NaN without any. Quartiles by
    linear interpolation (Hyndman and Fan 1996, definition 7)."""
    quartiles = np.quantile(iou, [0.25, 0.5, 0.75]).tolist() if len(iou) else [NAN] * 3
    mean = float(iou.mean()) if len(iou) else NAN
    return {"crown_iou_mean": mean} | {f"crown_iou_{q}": v for q, v in zip(QUARTILES, quartiles, strict=True)}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else NAN
