"""A tiny data set on disk with known truth: discs on a noisy ground, PNG pictures, COCO with RLE masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from drawn import crowns_of, drawn_sample
from PIL import Image

from cabruca.config.load import load_config
from cabruca.config.schema import Config
from cabruca.metrics.records import rle_of_crop

SIDE = 128
CATEGORIES = [{"id": 1, "name": "cacao_tree"}, {"id": 2, "name": "shade_tree"}]


def write_farm(
    folder: Path, *, pictures: int = 3, boxes_only: bool = False, box_classes: frozenset[int] = frozenset()
) -> Path:
    """`<folder>/images/*.png` and `<folder>/farm.json`; the same pixels and crowns every time.

    Args:
        boxes_only: no crown has a mask; box_classes: those of these classes have none.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    coco: dict[str, Any] = {"images": [], "annotations": [], "categories": CATEGORIES}
    for k in range(1, pictures + 1):
        rng = np.random.default_rng(k)
        discs = [(*rng.uniform(16, SIDE - 16, 2), rng.uniform(7, 15), int(rng.integers(1, 3))) for _ in range(6)]
        image = drawn_sample(discs, size=SIDE, index=k).image.numpy()
        pixels = (image.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(folder / "images" / f"{k}.png")
        coco["images"].append({"id": k, "file_name": f"{k}.png", "width": SIDE, "height": SIDE, "gsd_m": 0.1})
        coco["annotations"] += [
            _annotation(d, k, len(coco["annotations"]) + i, boxes_only or d[3] in box_classes)
            for i, d in enumerate(discs, 1)
        ]
    (folder / "farm.json").write_text(json.dumps(coco))
    return folder


def _annotation(disc: tuple[float, float, float, int], image_id: int, number: int, boxes_only: bool) -> dict[str, Any]:
    x, y, crop = crowns_of([disc]).masks.crop(0)
    h, w = crop.shape
    rle = rle_of_crop(crop.numpy(), x, y, height=SIDE, width=SIDE)
    rle["counts"] = rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"]
    own: dict[str, Any] = {"id": number, "image_id": image_id, "category_id": disc[3], "bbox": [x, y, w, h]}
    own |= {"area": int(crop.sum()), "iscrowd": 0, "segmentation": rle, "attributes": {"bbox_only": boxes_only}}
    if boxes_only:
        own["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return own


def farm_settings(farm: Path, output_dir: Path) -> dict[str, Any]:
    """Dotted keys of a configuration that trains a small light network on the farm within seconds."""
    return {
        "output_dir": str(output_dir),
        "data.train_dir": str(farm / "images"),
        "data.val_dir": str(farm / "images"),
        "data.train_annotations": str(farm / "farm.json"),
        "data.val_annotations": str(farm / "farm.json"),
        "data.batch_size": 2,
        "data.tile_size": 64,
        "data.overlap": 16,
        "data.num_workers": 0,
        "model.backbone": "tf_efficientnet_lite0",
        "model.fpn_channels": 64,
        "model.box_head_channels": 64,
        "model.mask_head_layers": 1,
        "model.anchor_sizes_px": [16, 32, 64, 128],
        "model.proposals": 100,
        "model.rois_per_picture": 32,
        "model.masks_per_picture": 8,
        "optimizer.lr": 0.001,
        "training.num_epochs": 2,
        "training.early_stopping_patience": 0,
        "tracking.tensorboard": False,
        "validation.num_pictures": 1,
    }


def farm_config(farm: Path, output_dir: Path, changes: Mapping[str, Any] | None = None) -> Config:
    return load_config(None, {**farm_settings(farm, output_dir), **(changes or {})})
