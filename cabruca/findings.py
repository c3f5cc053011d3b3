"""What a validation found, as plain arrays, for those who draw it. A leaf: it imports numpy only.

All of it comes out of the metrics' own matching, over the whole validation set, all ranks together: the mean of
`precision` is the class's mAP_50, the sums of `counts` are the counts, the pairs of `confusion` are those that
`species_accuracy` and the crown diameters are measured on. So their sums may differ; `rules` says what each counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

RECALL: Floats = np.linspace(0.0, 1.0, 101)
"""Recall levels of `ClassCurve.precision`, as COCO has them."""

SCORES: Floats = np.arange(101) / 100
"""Score thresholds of `ClassCurve.hits` and `found`."""


@dataclass(frozen=True)
class ClassCurve:
    """One class at an IoU of 0.5, matched as COCO does it: best score first, ignored regions neither right nor wrong.

    Attributes:
        name: of the class. kind: `segm` where its masks are compared, else `bbox`.
        truths: crowns in the truth.
        precision: float64 `[101]`, the best precision at `RECALL` or beyond; its mean is mAP_50.
        hits, found: int64 `[101]`, right crowns, and all, of a score of `SCORES` or more.
    """

    name: str
    kind: str
    truths: int
    precision: Floats
    hits: Ints
    found: Ints

    @property
    def f1(self) -> Floats:
        """float64 `[101]` over `SCORES`: 2 * hits / (found + truths)."""
        return 2 * self.hits / np.maximum(self.found + self.truths, 1)

    @property
    def best(self) -> tuple[float, float]:
        """Score threshold of the largest F1 (the middle one of several), and that F1."""
        top = np.flatnonzero(self.f1 >= self.f1.max() - 1e-12)
        k = int(top[len(top) // 2])
        return float(SCORES[k]), float(self.f1[k])


def _no_pairs() -> Floats:
    return np.zeros((0, 2))


def _no_labels() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Findings:
    """One validation.

    Attributes:
        classes: instance classes, label 1 first; covers: semantic classes, class 0 first.
        score_threshold: found crowns count from here on, in `confusion`, `counts` and `diameters`: one for all, or one
            by label (label 0, no crown, first).
        curves: of the classes that occur in the truth.
        pictures: P ids; counts: int64 `[P, K, 2]`, crowns of each class in the truth and found.
        confusion: int64 `[K + 1, K + 1]`, crowns, truth by row; the last row is what is not there and was found, the
            last column what is there and was missed. None where the agroforestry metrics are switched off.
        pixels: int64 `[C, C]`, pixels of land cover, truth by row; None without truth or head.
        diameters: float64 `[M, 2]` of the pairs, truth and found, in `unit` (`m`, or `px` where no scale is known);
            labels: int64 `[M]`, of the truth.
        full: ids of pictures, or of windows of them, that the detection cap may have cost crowns.
    """

    classes: tuple[str, ...]
    covers: tuple[str, ...]
    score_threshold: float | tuple[float, ...]
    curves: tuple[ClassCurve, ...] = ()
    pictures: tuple[str, ...] = ()
    counts: Ints = field(default_factory=lambda: np.zeros((0, 0, 2), np.int64))
    confusion: Ints | None = None
    pixels: Ints | None = None
    diameters: Floats = field(default_factory=_no_pairs)
    labels: Ints = field(default_factory=_no_labels)
    unit: str = "m"
    full: tuple[str, ...] = ()

    def cap_warning(self, cap: int) -> str | None:
        """What to say where the detection cap may have cost crowns, else None. `cap`: `validation.max_detections`."""
        if not self.full:
            return None
        picture, y, x = self.full[0].rsplit(":", 2)
        many = "1 picture or window" if len(self.full) == 1 else f"{len(self.full)} pictures or windows"
        return (
            f"validation.max_detections is {cap}, and in {many} as many crowns count (first: picture {picture} from "
            f"x {x}, y {y} px on): crowns may be missing; raise it"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON."""
        own = {**vars(self), "curves": [{**vars(curve)} for curve in self.curves]}
        return {name: _plain(value) for name, value in own.items()}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Findings:
        """From `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        curves = tuple(
            ClassCurve(c["name"], c["kind"], c["truths"], _floats(c["precision"]), _ints(c["hits"]), _ints(c["found"]))
            for c in found["curves"]
        )
        classes = tuple(found["classes"])
        return cls(
            classes=classes,
            covers=tuple(found["covers"]),
            score_threshold=_scores(found["score_threshold"]),
            curves=curves,
            pictures=tuple(found["pictures"]),
            counts=_ints(found["counts"]).reshape(-1, len(classes), 2),
            confusion=None if found["confusion"] is None else _ints(found["confusion"]),
            pixels=None if found["pixels"] is None else _ints(found["pixels"]),
            diameters=_floats(found["diameters"]).reshape(-1, 2),
            labels=_ints(found["labels"]),
            unit=str(found["unit"]),
            full=tuple(found.get("full") or ()),
        )


def rules(found: Findings) -> dict[str, str]:
    """What each part of the findings counts: they see the same crowns, and need not come to the same sums."""
    least = found.score_threshold
    scores = [f"{v:.3g}" for v in (least[1:] if isinstance(least, tuple) else (least,))]
    used = f"{'a score' if len(scores) == 1 else 'scores'} of {' and '.join(scores)} on"
    return {
        "curves": "crowns that a picture shows, those cut by its edge too, picture by picture; found ones of any score",
        "counts": f"crowns with their centre in the picture, from {used}; a tree in two pictures counts in both",
        "confusion": f"trees on the ground from {used}; each counts once, however many pictures show it",
        "diameters": f"pairs of the confusion: trees on the ground from {used}, each once",
    }


def _scores(value: Any) -> float | tuple[float, ...]:
    return tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.round(value, 6).tolist() if value.dtype.kind == "f" else value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _floats(values: Sequence[Any]) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _ints(values: Sequence[Any]) -> Ints:
    return np.asarray(values, dtype=np.int64)
