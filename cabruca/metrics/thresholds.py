"""Which score to count crowns from: every score that occurs is tried, in one pass over the gathered records.

Found crowns are matched to true ones as COCO does it (Lin et al. 2014): in each picture and class the found crowns in
falling order of score take the free true crown that they overlap most, from a box IoU of 0.5 on. What a crown takes
depends on better ones alone, so one matching holds for every score to count from, and a sweep is a running sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cabruca.ground import Floats, Ints
from cabruca.metrics.counts import count_accuracy
from cabruca.metrics.matching import MATCH_IOU, box_iou, box_shares
from cabruca.metrics.records import CrownSet, PictureRecord

ChosenBy = Literal["count", "f1"]
CHOSEN_BY: ChosenBy = "count"
"""What a score is chosen by where nothing else is asked for. See docs/metrics.md for why, with numbers."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """A score, and what counting from it came to. Attributes: score; the others as `counts` and F1 define them."""

    score: float
    precision: float
    recall: float
    f1: float
    count: float
    count_true: float
    count_accuracy: float

    def measured(self) -> dict[str, float]:
        """All but the score."""
        return {name: value for name, value in vars(self).items() if name != "score"}


@dataclass(frozen=True)
class Sweep:
    """One class over all pictures. D found crowns, best first.

    Attributes:
        scores: `[D]`, falling. right, wrong: bool `[D]`; neither where an ignored region has it. counted: bool `[D]`.
        true: true crowns that could be found; counted_true: those that are counted.
    """

    scores: Floats
    right: Bools
    wrong: Bools
    counted: Bools
    true: int
    counted_true: int

    @classmethod
    def of(cls, records: Sequence[PictureRecord], label: int) -> Sweep:
        """Of the crowns of one class."""
        parts = [_picture(r, label) for r in records]
        scores, right, wrong, counted = (np.concatenate([p[k] for p in parts] or [np.zeros(0)]) for k in range(4))
        order = np.argsort(-scores, kind="stable")
        return cls(
            scores[order],
            right[order].astype(np.bool_),
            wrong[order].astype(np.bool_),
            counted[order].astype(np.bool_),
            sum(int((r.truth.labels == label).sum()) for r in records),
            sum(int((r.truth.counted & (r.truth.labels == label)).sum()) for r in records),
        )

    def best(self, chosen_by: ChosenBy = CHOSEN_BY) -> Choice | None:
        """The score of the smallest count error (of equal ones the best F1), or the other way round; the highest of
        those that are equal in both. It lies midway to the next crown's. None without truth, or without any find."""
        ends = self._ends()
        if self.true == 0 or self.counted_true == 0 or len(ends) == 0:
            return None
        hits, misses = np.cumsum(self.right)[ends], np.cumsum(self.wrong)[ends]
        f1 = 2 * hits / (hits + misses + self.true)
        off = np.abs(np.cumsum(self.counted)[ends] - self.counted_true).astype(np.float64)
        keys = (-f1, off) if chosen_by == "count" else (off, -f1)  # lexsort: the last key first
        return self._choice(int(ends[np.lexsort((ends, *keys))[0]]))

    def at(self, score: float) -> Choice:
        """What counting from `score` on comes to."""
        return self._measure(int((self.scores >= score).sum()), score)

    def _ends(self) -> Ints:
        """Numbers of the last crown of each score."""
        last = np.append(np.diff(self.scores) != 0, True)[: len(self.scores)]
        return np.flatnonzero(last).astype(np.int64)

    def _choice(self, end: int) -> Choice:
        here = float(self.scores[end])
        below = float(self.scores[end + 1]) if end + 1 < len(self.scores) else here
        middle = (here + below) / 2
        return self._measure(end + 1, middle if middle > below else here)

    def _measure(self, taken: int, score: float) -> Choice:
        hits, misses = int(self.right[:taken].sum()), int(self.wrong[:taken].sum())
        count = int(self.counted[:taken].sum())
        return Choice(
            score,
            precision=hits / (hits + misses) if hits + misses else 0.0,
            recall=hits / self.true if self.true else 0.0,
            f1=2 * hits / (hits + misses + self.true) if hits + misses + self.true else 0.0,
            count=float(count),
            count_true=float(self.counted_true),
            count_accuracy=count_accuracy(count, self.counted_true),
        )


def choose_scores(
    records: Sequence[PictureRecord], names: Sequence[str], *, chosen_by: ChosenBy = CHOSEN_BY
) -> dict[str, Choice]:
    """Class -> the score to count its crowns from; a class without truth has none.

    Args:
        records: of all pictures, each once. names: instance classes; names[0] is label 1.
    """
    found = {name: Sweep.of(records, label).best(chosen_by) for label, name in enumerate(names, 1)}
    return {name: choice for name, choice in found.items() if choice is not None}


def _picture(record: PictureRecord, label: int) -> tuple[Floats, Bools, Bools, Bools]:
    """Scores, right, wrong and counted of a picture's found crowns of a class."""
    own = np.flatnonzero(record.found.labels == label)
    own = own[np.argsort(-record.found.scores[own], kind="stable")]
    found = _corners(record.found)[own]
    right = _taken(found, _corners(record.truth)[record.truth.labels == label])
    regions = _corners(record.ignored)[np.isin(record.ignored.labels, (0, label))]
    area = (found[:, 2:] - found[:, :2]).prod(axis=1)
    shared, _ = box_shares(found[:, None], regions)
    inside = shared.max(axis=1, initial=0) >= MATCH_IOU * np.maximum(area, 1e-9)
    return record.found.scores[own], right, ~right & ~inside, record.found.counted[own]


def _taken(found: Floats, true: Floats) -> Bools:
    """bool `[D]`: boxes, best first, that take a true one."""
    right = np.zeros(len(found), dtype=np.bool_)
    if len(true) == 0:
        return right
    iou = box_iou(found[:, None], true)
    for d in np.flatnonzero(iou.max(axis=1) >= MATCH_IOU - 1e-9).tolist():
        best = int(iou[d].argmax())
        if iou[d, best] >= MATCH_IOU - 1e-9:
            right[d] = True
            iou[:, best] = -1.0
    return right


def _corners(crowns: CrownSet) -> Floats:
    boxes = crowns.boxes_xywh_px
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).reshape(-1, 4)
