"""Measures the facts of the training data that predict needs of a checkpoint: scale, crown size, masks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from cabruca.data.pictures import PictureSet
from cabruca.facts import TrainingFacts

MEASURED_PICTURES = 200
"""Pictures whose crowns are measured, evenly spread over the set."""

MEASURED_CROWNS = 50
"""Crowns measured a picture, evenly spread over its sizes: a mask must be painted to know its area."""


def training_facts(pictures: PictureSet) -> TrainingFacts:
    """Of the pictures as windows are read from them (resampled where the specification says so).

    Crown diameters are those of `CrownTable.diameter`, over up to 200 pictures and 50 crowns of each.

    Raises:
        DataError: a raster or an annotation that turns out broken.
    """
    scales = [g for i in range(len(pictures)) if (g := pictures.gsd_m(i)) is not None]
    chosen = _spread(range(len(pictures)), MEASURED_PICTURES)
    px, metres = [], []
    for i in chosen:
        table, gsd_m = pictures.table(i), pictures.gsd_m(i)
        rows = [k for k in range(len(table)) if table.labels[k] > 0]
        found = [table.diameter(k) for k in _spread(rows, MEASURED_CROWNS)]
        px += found
        metres += [] if gsd_m is None else [d * gsd_m for d in found]
    counts = Counter(pictures.labels())
    names, everyone = pictures.spec.instance_classes, list(enumerate(pictures.pictures))
    return TrainingFacts(
        gsd_m=float(np.median(scales)) if scales else None,
        crown_diameter_p95_px=_p95(px),
        crown_diameter_p95_m=_p95(metres),
        masks={name: pictures.has_masks(label) for label, name in enumerate(names, 1)},
        land_cover=any(p.image.semantic_mask is not None or pictures.paints(i) for i, p in everyone),
        crowns={name: counts[label] for label, name in enumerate(names, 1)},
    )


def _spread(values: Sequence[int], most: int) -> list[int]:
    if len(values) <= most:
        return list(values)
    return [values[k * len(values) // most] for k in range(most)]


def _p95(values: Sequence[float]) -> float | None:
    known = [v for v in values if v > 0 and not math.isnan(v)]
    return float(np.percentile(known, 95)) if known else None
