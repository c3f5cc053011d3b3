"""Drawn samples whose truth is known: discs of given centre and radius on a noisy ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cabruca.config.schema import Config, ModelConfig, ValidationConfig
from cabruca.draws import draw_key
from cabruca.structures import Batch, CroppedMasks, Crowns, InputSpec, Prediction, Sample, collate

Disc = tuple[float, float, float, int]
"""x, y, radius (px), label."""

SPEC = InputSpec(
    bands=(1, 2, 3),
    scale=255.0,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
    tile_size=128,
    gsd_m=None,
    instance_classes=("cacao_tree", "shade_tree"),
    semantic_classes=("background", "cacao_tree", "shade_tree", "understory", "bare_soil", "shadows"),
)

LIGHT = ModelConfig(
    backbone="tf_efficientnet_lite0",
    fpn_channels=64,
    box_head_channels=64,
    mask_head_layers=1,
    anchor_sizes_px=(16.0, 32.0, 64.0, 128.0),
    proposals=100,
    rois_per_picture=32,
    masks_per_picture=8,
)


def light_config(**model: object) -> Config:
    return Config(model=LIGHT.model_copy(update=model), validation=ValidationConfig(score_threshold=0.5))


def disc_crop(x: float, y: float, r: float) -> tuple[int, int, np.ndarray]:
    """Pixels whose centre lies in the disc, as a cropped bitmap."""
    x0, y0, x1, y1 = int(np.floor(x - r)), int(np.floor(y - r)), int(np.ceil(x + r)), int(np.ceil(y + r))
    rows, cols = np.mgrid[y0:y1, x0:x1]
    return x0, y0, ((cols + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= r * r).astype(np.uint8)


def crowns_of(discs: Sequence[Disc], *, masks: bool = True) -> Crowns:
    boxes = torch.tensor([[x - r, y - r, x + r, y + r] for x, y, r, _ in discs], dtype=torch.float32).reshape(-1, 4)
    crops = [disc_crop(x, y, r) if masks else None for x, y, r, _ in discs]
    labels = torch.tensor([d[3] for d in discs], dtype=torch.int64)
    return Crowns(boxes, labels, CroppedMasks.from_crops(crops), torch.tensor([2 * d[2] for d in discs]))


def drawn_sample(
    discs: Sequence[Disc],
    *,
    size: int = 128,
    index: int = 0,
    masks: bool = True,
    bands: int = 3,
    gsd_m: float | None = 0.1,
) -> Sample:
    """A picture with these discs; semantic, diameter and density truth follow from them (none where masks=False)."""
    rng = np.random.default_rng(index)
    image = rng.uniform(0.2, 0.4, (bands, size, size)).astype(np.float32)
    crowns = crowns_of(discs, masks=masks)
    semantic = np.zeros((size, size), np.uint8)
    diameter = np.zeros((size, size), np.float32)
    for i, mask in enumerate(crowns_of(discs).masks.dense(size, size).numpy().astype(bool)):
        image[:, mask] += 0.2 * discs[i][3]
        semantic[mask] = discs[i][3]
        diameter[mask] = 2 * discs[i][2]
    tree = torch.from_numpy(semantic > 0).float().reshape(1, 1, size, size)
    return Sample(
        image=torch.from_numpy(image),
        valid=torch.ones(size, size, dtype=torch.bool),
        crowns=crowns,
        semantic=torch.from_numpy(semantic) if masks else None,
        crown_diameter_px=torch.from_numpy(diameter[2::4, 2::4].copy()) if masks else None,
        density=torch.nn.functional.avg_pool2d(tree, 32)[0, 0] if masks else None,
        key=draw_key(0, 0, index),
        picture=f"{index}:0:0",
        gsd_m=gsd_m,
        size_hw_px=(size, size),
        core_xyxy_px=(0, 0, size, size),
    )


def drawn_batch(n: int = 2, *, masks: bool = True, size: int = 128, discs: int = 5) -> Batch:
    """`n` pictures of random discs, always the same ones."""
    out = []
    for i in range(n):
        rng = np.random.default_rng(100 + i)
        own = [(*rng.uniform(16, size - 16, 2), rng.uniform(6, 16), int(rng.integers(1, 3))) for _ in range(discs)]
        out.append(drawn_sample(own, size=size, index=i, masks=masks))
    return collate(out)


def perfect(sample: Sample, *, score: float = 0.9) -> Prediction:
    """The prediction that is right in everything."""
    n = len(sample.crowns)
    return Prediction(
        boxes_xyxy_px=sample.crowns.boxes_xyxy_px,
        scores=torch.full((n,), score),
        labels=sample.crowns.labels,
        masks=sample.crowns.masks,
        semantic=sample.semantic,
        crown_diameter_px=sample.crown_diameter_px,
        density=sample.density,
    )
