"""From which score on a found crown counts: found on validation, kept in a checkpoint's sidecar.

A network's scores are no probabilities: one that was trained on 40 pictures finds the right number of crowns at 0.3,
another at 0.8. Each validation of a training run looks for the score that fits (`metrics/thresholds.py`), and the
checkpoint that is saved after it carries the answer in its sidecar, `name.json`, under `operating_point`.
`cabruca evaluate --tune-thresholds` puts one there that was found on other labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cabruca.errors import CheckpointError
from cabruca.train import checkpoint as checkpoints

KEY = "operating_point"
"""Under this name in the sidecar."""


@dataclass(frozen=True)
class OperatingPoint:
    """What predict applies.

    Attributes:
        score: class -> found crowns count from this score on; a class without truth there has none.
        chosen_by: `count`, the score whose number of crowns is nearest to the truth's, or `f1`, of the best F1.
        nms_iou: crowns of a class and window that overlap more are one; None: as trained (`validation.nms_iou`).
        merge_iou, merge_containment: crowns of two windows are one from this intersection over union on, or this share
            of the smaller one that lies in the other; None: predict's own.
        measured: class -> what the score came to there (`precision`, `recall`, `f1`, `count`, `count_true`,
            `count_accuracy`). found_on: `validation after epoch 12`, or the labels that were given.
    """

    score: Mapping[str, float]
    chosen_by: str
    nms_iou: float | None = None
    merge_iou: float | None = None
    merge_containment: float | None = None
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    found_on: str = "validation"

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, as the sidecar holds them."""
        plain = asdict(self)
        return {**plain, "score": dict(self.score), "measured": {k: dict(v) for k, v in self.measured.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatingPoint:
        """Back from the sidecar.

        Raises:
            ValueError: not what `to_dict` gives.
        """
        score = values.get("score")
        if not isinstance(score, Mapping):
            raise ValueError("no score per class")
        return cls(
            score={str(name): _share(value, f"the score of {name}") for name, value in score.items()},
            chosen_by=str(values.get("chosen_by", "")),
            **{
                name: None if values.get(name) is None else _share(values[name], name)
                for name in ("nms_iou", "merge_iou", "merge_containment")
            },
            measured=dict(values.get("measured") or {}),
            found_on=str(values.get("found_on", "")),
        )


def read(checkpoint: Path) -> OperatingPoint | None:
    """What the sidecar of `checkpoint` says; None without a sidecar that vouches for the file, or without a point.

    Raises:
        CheckpointError: what stands there is none.
    """
    found = (checkpoints.sidecar_of(checkpoint) or {}).get(KEY)
    if found is None:
        return None
    try:
        return OperatingPoint.from_dict(found)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the operating point in {Path(checkpoint).stem}.json is none ({error}); "
            "write it anew with cabruca evaluate --tune-thresholds"
        ) from error


def write(checkpoint: Path, point: OperatingPoint) -> None:
    """Put `point` into the sidecar of `checkpoint`, atomically; other keys stay, and the file itself is not touched.

    Raises:
        CheckpointError: the checkpoint is not there or damaged, or the disk refused.
    """
    checkpoints.amend(checkpoint, {KEY: point.to_dict()})


def _share(value: Any, name: str) -> float:
    number = float(value)
    if not (math.isfinite(number) and 0 <= number <= 1):
        raise ValueError(f"{name} is {value} and not within 0..1")
    return number
