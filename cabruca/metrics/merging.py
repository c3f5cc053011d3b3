"""Crowns of overlapping windows made one: what `cabruca evaluate --tune-thresholds` tries thresholds with.

Boxes alone: a crown that two windows show is one where the boxes overlap by `iou`, or where `containment` of the
smaller box lies in the other, as of a crown that a window's edge has cut. Whole crowns stay before cut ones, and among
them the surer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cabruca.ground import Floats, Ints
from cabruca.metrics.matching import box_shares

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WindowCrowns:
    """N crowns of all windows of one picture.

    Attributes:
        boxes: `[N, 4]`, xyxy, px of the picture. labels, scores: `[N]`. window: `[N]`, number of its window.
        cut: bool `[N]`, an inner edge of its window cut it.
    """

    boxes: Floats
    labels: Ints
    scores: Floats
    window: Ints
    cut: Bools

    @classmethod
    def join(cls, parts: Sequence[WindowCrowns]) -> WindowCrowns:
        """All of them, one part after the other."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Overlaps:
    """Pairs of one class from two windows whose boxes overlap: better and worse `[P]`, `iou`, `containment` `[P]`;
    ordered by rank, best first, as all else here is."""

    better: Ints
    worse: Ints
    iou: Floats
    containment: Floats


def ranked(crowns: WindowCrowns) -> WindowCrowns:
    """Whole ones first, among them the surer."""
    order = np.lexsort((-crowns.scores, crowns.cut))
    return WindowCrowns(*(getattr(crowns, name)[order] for name in WindowCrowns.__dataclass_fields__))


def overlaps_of(crowns: WindowCrowns) -> Overlaps:
    """The pairs that may be one crown, of crowns in their rank."""
    first, second = np.triu_indices(len(crowns.labels), 1)
    low = np.maximum(crowns.boxes[first, :2], crowns.boxes[second, :2])
    high = np.minimum(crowns.boxes[first, 2:], crowns.boxes[second, 2:])
    near = (crowns.window[first] != crowns.window[second]) & (crowns.labels[first] == crowns.labels[second])
    near &= (high > low).all(axis=1)
    first, second = first[near].astype(np.int64), second[near].astype(np.int64)
    both, smaller = box_shares(crowns.boxes[first], crowns.boxes[second])
    area = (crowns.boxes[:, 2:] - crowns.boxes[:, :2]).prod(axis=1)
    return Overlaps(first, second, both / (area[first] + area[second] - both), both / np.maximum(smaller, 1e-9))


def merged(n: int, pairs: Overlaps, *, iou: float, containment: float) -> Bools:
    """bool `[n]`: crowns that stay; one that stays takes away the worse ones that are the same crown."""
    stays = np.ones(n, dtype=np.bool_)
    same = (pairs.iou >= iou) | (pairs.containment >= containment)
    better, worse = pairs.better[same], pairs.worse[same]
    for k in np.lexsort((worse, better)).tolist():
        if stays[better[k]]:
            stays[worse[k]] = False
    return stays
