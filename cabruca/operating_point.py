"""The operating point of a checkpoint: the thresholds that were chosen on validation. A leaf."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class OperatingPoint:
    """Thresholds found on validation, in the checkpoint's sidecar under `operating_point`.

    Attributes:
        score: instance class -> crowns from this score on are counted. chosen_by: the metric that was best there.
        nms_iou: None: as the checkpoint was trained. merge_iou, merge_containment: of crowns of neighbouring windows.
    """

    score: Mapping[str, float]
    chosen_by: str
    nms_iou: float | None
    merge_iou: float | None
    merge_containment: float | None


def read(checkpoint: Path) -> OperatingPoint | None:
    """The operating point beside `checkpoint`; None where none was found."""
    try:
        beside = json.loads(checkpoint.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    told = beside.get("operating_point") if isinstance(beside, dict) else None
    if not isinstance(told, dict):
        return None
    return OperatingPoint(
        score={str(k): float(v) for k, v in told["score"].items()},
        chosen_by=str(told.get("chosen_by", "")),
        nms_iou=told.get("nms_iou"),
        merge_iou=told.get("merge_iou"),
        merge_containment=told.get("merge_containment"),
    )
