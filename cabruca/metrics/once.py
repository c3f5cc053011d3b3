"""A tree that several windows or pictures show is one tree."""

from __future__ import annotations

import numpy as np

from cabruca.ground import Floats, Ints
from cabruca.metrics.matching import box_iou, box_shares, overlapping
from cabruca.metrics.trees import Bools, Trees

SAME_IOU = 0.5
"""Crowns are one tree from this IoU on, of what both pictures show of them."""

SHOWN_SHARE = 0.05
"""Two pictures have to share this much of the smaller crown's box to say that it is one."""


def once(trees: Trees) -> Trees:
    """Each tree once: the surest of the crowns that show it stays, of equally sure ones the larger.

    First crowns that two windows of one picture brought from beside the line between them are put together, at an IoU
    of their boxes of 0.5 or more. Then crowns of different pictures: at an IoU of 0.5 or more of their boxes, both
    clipped to the ground that both pictures show, so that a crown that one picture cuts is compared with what the other
    shows of it there. Where a picture cut one of them, their species have to be equal, or half of the cut one has to
    lie in the other, whose size it then may have. The best pairs go first, and of one picture at most one crown is part
    of a tree.
    """
    if len(np.unique(trees.window)) < 2:
        return trees
    beside = np.flatnonzero(trees.seam)
    a, b = (beside[k] for k in overlapping(trees.select(beside), trees.select(beside)))
    seam = (a < b) & (trees.picture[a] == trees.picture[b]) & (trees.window[a] != trees.window[b])
    a, b = a[seam], b[seam]
    iou = box_iou(trees.boxes[a], trees.boxes[b])
    left = _merged(trees, a, b, np.where(iou >= SAME_IOU, iou, 0.0), trees.window)
    if len(np.unique(left.picture)) < 2:
        return left
    a, b = overlapping(left, left)
    other = (a < b) & (left.picture[a] != left.picture[b])
    a, b = a[other], b[other]
    iou = _shown_iou(left, a, b)
    same = (iou >= SAME_IOU) & _may_be_one(left, a, b)
    return _merged(left, a, b, np.where(same, iou, 0.0), left.picture)


def _shown_iou(trees: Trees, a: Ints, b: Ints) -> Floats:
    """IoU `[P]` of boxes clipped to the ground that both pictures show, 0 where they share next to nothing of it."""
    low = np.maximum(trees.frame[a, :2], trees.frame[b, :2])
    high = np.maximum(np.minimum(trees.frame[a, 2:], trees.frame[b, 2:]), low)
    both = np.concatenate([low, high], axis=1)
    first, second = (np.concatenate([np.clip(trees.boxes[k][:, i : i + 2], low, high) for i in (0, 2)], axis=1)
                     for k in (a, b))  # fmt: skip
    shown, _ = box_shares(first, both)
    _, smaller = box_shares(trees.boxes[a], trees.boxes[b])
    return np.where(shown >= SHOWN_SHARE * smaller, box_iou(first, second), 0.0)


def _may_be_one(trees: Trees, a: Ints, b: Ints) -> Bools:
    """bool `[P]`: neither was cut, or they are of one species, or what shows of the cut one fits into the other."""
    shared, _ = box_shares(trees.boxes[a], trees.boxes[b])
    size = (trees.boxes[:, 2:] - trees.boxes[:, :2]).prod(axis=1)
    fits = [~trees.cut[k] | (shared >= SAME_IOU * size[k]) for k in (a, b)]
    return np.asarray((trees.labels[a] == trees.labels[b]) | (fits[0] & fits[1]))


def _merged(trees: Trees, a: Ints, b: Ints, iou: Floats, group: np.ndarray[tuple[int], np.dtype[np.str_]]) -> Trees:
    """One crown of each tree; pairs of IoU above 0 are joined, the best first, never two crowns of one group."""
    rank = np.empty(len(trees), dtype=np.int64)
    rank[np.lexsort((-trees.area, -trees.scores))] = np.arange(len(trees))
    code = np.unique(group, return_inverse=True)[1].tolist()
    part: dict[int, list[int]] = {}
    for k in np.lexsort((rank[b], rank[a], -iou))[: int((iou > 0).sum())].tolist():
        i, j = int(a[k]), int(b[k])
        one, other = part.setdefault(i, [i]), part.setdefault(j, [j])
        if one is other or {code[m] for m in one} & {code[m] for m in other}:
            continue
        one.extend(other)
        part.update(dict.fromkeys(other, one))
    keep = np.ones(len(trees), dtype=np.bool_)
    for members in part.values():
        best = min(members, key=lambda m: rank[m])
        keep[[m for m in members if m != best]] = False
    return trees.select(keep)
