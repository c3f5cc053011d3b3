"""What a model card says of its data, read from the annotation files: counts, sites, resolution, licences."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 2**20
"""Larger annotation files are named and not counted: reading one would take seconds and gigabytes."""


@dataclass(frozen=True)
class SetFacts:
    """One annotation file.

    Attributes:
        name: `training` or `validation`. file: its path. images: pictures; None: not counted, and `why`.
        crowns: class -> annotations. masks: class -> those with an outline. sites: of the pictures, where they say so.
        gsd_m: smallest and largest metres a pixel that the pictures state. licences: names in the file.
    """

    name: str
    file: str
    images: int | None = None
    why: str = ""
    crowns: Mapping[str, int] = field(default_factory=dict)
    masks: Mapping[str, int] = field(default_factory=dict)
    sites: tuple[str, ...] = ()
    gsd_m: tuple[float, float] | None = None
    licences: tuple[str, ...] = ()


def set_facts(name: str, file: str, category_map: Mapping[str, str]) -> SetFacts:
    """Count one COCO file; a file that is missing, large or strange is said to be so.

    Args:
        category_map: dataset category -> class, or `ignore`.
    """
    path = Path(file)
    try:
        if path.stat().st_size > MOST_BYTES:
            return SetFacts(name, file, why=f"not counted: more than {MOST_BYTES // 2**20} MB")
        found = json.loads(path.read_text(encoding="utf-8"))
        return _counted(name, file, found, category_map)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return SetFacts(name, file, why="not counted: it cannot be read here")


def guessed_classes(task: Mapping[str, Any], sets: Sequence[SetFacts], names: Sequence[str]) -> list[str]:
    """Those of `names` without an example in training: as the task's state has it, else as the file was counted."""
    told = task.get("data")
    crowns = told.get("crowns") if isinstance(told, Mapping) else None
    if not isinstance(crowns, Mapping) or not crowns:
        learnt = {n for own in sets if own.name == "training" and own.images is not None for n in own.crowns}
        crowns = {n: int(n in learnt) for n in names} if learnt else {}
    return [name for name in names if crowns.get(name) == 0]


def _counted(name: str, file: str, found: Mapping[str, Any], category_map: Mapping[str, str]) -> SetFacts:
    categories = {c["id"]: category_map.get(c["name"], c["name"]) for c in found["categories"]}
    crowns: Counter[str] = Counter()
    masks: Counter[str] = Counter()
    for own in found["annotations"]:
        label = str(categories.get(own["category_id"], own["category_id"]))
        if label == "ignore" or own.get("iscrowd"):
            continue
        crowns[label] += 1
        boxes_only = own.get("bbox_only") or (own.get("attributes") or {}).get("bbox_only")
        masks[label] += bool(own.get("segmentation")) and not boxes_only
    images = found["images"]
    scales = [float(i["gsd_m"]) for i in images if isinstance(i.get("gsd_m"), int | float)]
    return SetFacts(
        name,
        file,
        images=len(images),
        crowns=dict(crowns),
        masks=dict(masks),
        sites=tuple(sorted({str(i["site"]) for i in images if i.get("site")})),
        gsd_m=(min(scales), max(scales)) if scales else None,
        licences=tuple(sorted({str(one.get("name", "")) for one in found.get("licenses") or [] if one.get("name")})),
    )
