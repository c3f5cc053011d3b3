"""Agroforestry metrics of drawn pictures, and stands of trees whose spacing is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely
import torch
from drawn import SPEC, Disc, drawn_sample, perfect

from cabruca.config.schema import ValidationConfig
from cabruca.ground import Ground
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.spacing import Stand
from cabruca.runtime import Runtime
from cabruca.structures import CroppedMasks, Prediction, Sample, collate

Pair = tuple[Sample, Prediction]


def metrics_of(pairs: Sequence[Pair], **settings: object) -> dict[str, float]:
    """Every metric of samples and their predictions."""
    config = ValidationConfig(score_threshold=0.5).model_copy(update=settings)
    e = Evaluator(SPEC.instance_classes, SPEC.semantic_classes, config, min_visible_share=0.3)
    for sample, found in pairs:
        e.add(collate([sample]), [found])
    return e.compute(Runtime.single(), mask_labels=frozenset({1, 2}))


def seen_as(truth: Sequence[Disc], found: Sequence[Disc], **picture: object) -> Pair:
    """A picture with these discs, and a prediction that shows others; 0.1 m a pixel unless told otherwise."""
    other = perfect(drawn_sample(found, **picture))  # type: ignore[arg-type]
    return drawn_sample(truth, **picture), other  # type: ignore[arg-type]


def placed(pair: Pair, x_m: float, y_m: float, *, gsd_m: float = 0.1, plane: str = "EPSG:31984") -> Pair:
    """The pair on a shared plane, its upper left corner at x, y; north is up."""
    sample, found = pair
    ground = Ground(plane, (gsd_m, 0, x_m, 0, -gsd_m, y_m), True, sample.picture, (0, 0), sample.size_hw_px)
    return replace(sample, ground=ground), found


def part(sample: Sample, x0: int, y0: int, *, side: int, context: int, ground: Ground) -> Pair:
    """The window of a drawn picture whose core is `side` px from x0, y0."""
    size = sample.image.shape[-1]
    left, top, right, bottom = (max(0, x0 - context), max(0, y0 - context), min(size, x0 + side + context),
                                min(size, y0 + side + context))  # fmt: skip
    crowns, shift = sample.crowns, torch.tensor([left, top, left, top], dtype=torch.float32)
    masks = CroppedMasks(crowns.masks.pixels, crowns.masks.rect_xywh_px - torch.tensor([left, top, 0, 0]))
    own = replace(
        sample,
        image=sample.image[:, top:bottom, left:right],
        valid=sample.valid[top:bottom, left:right],
        semantic=sample.semantic[top:bottom, left:right],
        crown_diameter_px=None,
        density=None,
        crowns=replace(
            crowns,
            boxes_xyxy_px=crowns.boxes_xyxy_px - shift,
            masks=masks,
            centre_xy_px=crowns.centre_xy_px - shift[:2],
        ),
        picture=f"0:{y0}:{x0}",
        size_hw_px=(bottom - top, right - left),
        core_xyxy_px=(x0 - left, y0 - top, x0 - left + side, y0 - top + side),
        ground=ground.at(left, top),
    )
    return own, perfect(own)


def lattice(side: int, spacing: float = 1.0) -> Stand:
    """`side` x `side` trees on squares, half a spacing from the edge of their plot."""
    line = (np.arange(side) + 0.5) * spacing
    x, y = np.meshgrid(line, line)
    return np.stack([x.ravel(), y.ravel()], axis=1), shapely.box(0, 0, side * spacing, side * spacing)


def scattered(n: int, side: float, seed: int) -> Stand:
    """`n` trees anywhere on a square."""
    return np.random.default_rng(seed).uniform(0, side, (n, 2)), shapely.box(0, 0, side, side)
