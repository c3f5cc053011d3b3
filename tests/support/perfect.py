"""A network that is told the truth: drawn crowns, clipped to the window, found by the coordinates in its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio import Affine

from cabruca.crops import CroppedMasks
from cabruca.facts import TrainingFacts
from cabruca.predict.plan import Plan, Request
from cabruca.structures import Batch, InputSpec, Prediction

CLASSES = ("cacao_tree", "shade_tree")
SPEC = InputSpec(
    bands=(1, 2, 3),
    scale=1.0,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    tile_size=96,
    gsd_m=None,
    instance_classes=CLASSES,
    semantic_classes=("background", *CLASSES),
)


@dataclass(frozen=True)
class Disc:
    """A drawn crown, px of the grid."""

    x: float
    y: float
    radius: float
    label: int = 1

    def mask(self, height: int, width: int) -> np.ndarray[Any, Any]:
        """bool `[height, width]`: pixels whose centre is inside."""
        ys, xs = np.mgrid[:height, :width] + 0.5
        return np.asarray((xs - self.x) ** 2 + (ys - self.y) ** 2 <= self.radius**2)


class Perfect:
    """A `Network`. Bands 1 and 2 of the raster hold the column and the row of each pixel (0-based, grid px).

    Args:
        discs: the truth. hw: of the grid. masks: False: boxes only.
    """

    def __init__(self, discs: Sequence[Disc], hw: tuple[int, int], *, masks: bool = True) -> None:
        self._masks = [d.mask(*hw) for d in discs]
        self._labels = [d.label for d in discs]
        self._land = np.zeros(hw, dtype=np.uint8)
        for d, m in zip(discs, self._masks, strict=True):
            self._land[m] = d.label
        self._with_masks = masks
        self.calls: list[int] = []

    def __call__(self, batch: Batch) -> list[Prediction]:
        self.calls.append(len(batch))
        return [self._see(batch.images[b], batch.valid[b], hw) for b, hw in enumerate(batch.sizes_hw_px)]

    def _see(self, image: torch.Tensor, valid: torch.Tensor, hw: tuple[int, int]) -> Prediction:
        height, width = hw
        rows, columns = torch.nonzero(valid, as_tuple=True)
        row, column = int(rows[0]), int(columns[0])
        left, top = round(float(image[0, row, column])) - column, round(float(image[1, row, column])) - row
        boxes, labels, crops = [], [], []
        for mask, label in zip(self._masks, self._labels, strict=True):
            part = cut(mask, left, top, hw)
            ys, xs = np.nonzero(part)
            if ys.size == 0:
                continue
            y0, y1, x0, x1 = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
            boxes.append([x0, y0, x1, y1])
            labels.append(label)
            crops.append((int(x0), int(y0), part[y0:y1, x0:x1].astype(np.uint8)))
        n = len(boxes)
        land = cut(self._land, left, top, hw)
        return Prediction(
            boxes_xyxy_px=torch.tensor(np.array(boxes, dtype=np.float32).reshape(-1, 4)),
            scores=torch.full((n,), 0.9),
            labels=torch.tensor(labels, dtype=torch.int64),
            masks=CroppedMasks.from_crops(crops if self._with_masks else [None] * n),
            semantic=torch.from_numpy(land.copy()),
            crown_diameter_px=None,
            density=torch.full((-(-height // 32), -(-width // 32)), 0.25),
        )


def cut(plane: np.ndarray[Any, Any], left: int, top: int, hw: tuple[int, int]) -> np.ndarray[Any, Any]:
    """A window of `plane`, zero outside of it."""
    out = np.zeros(hw, dtype=plane.dtype)
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = max(y0, min(top + hw[0], plane.shape[0])), max(x0, min(left + hw[1], plane.shape[1]))
    out[y0 - top : y1 - top, x0 - left : x1 - left] = plane[y0:y1, x0:x1]
    return out


def write_coordinates(
    path: Path, hw: tuple[int, int], *, crs: str | None = None, transform: Affine | None = None, **profile: Any
) -> Path:
    """A float32 GeoTIFF whose bands are column, row and 0."""
    ys, xs = np.mgrid[: hw[0], : hw[1]].astype(np.float32)
    given = {"driver": "GTiff", "height": hw[0], "width": hw[1], "count": 3, "dtype": "float32", "crs": crs, **profile}
    if transform is not None:
        given["transform"] = transform
    with rasterio.open(path, "w", **given) as out:
        out.write(np.stack([xs, ys, np.zeros_like(xs)]))
    return path


def plan_of(
    images: Sequence[Path], out: Path, *, crown_px: float | None = None, tile_size: int = 96, **options: Any
) -> Plan:
    """A plan without a checkpoint."""
    request = Request(images=[str(i) for i in images], out=out, **options)
    facts = TrainingFacts(crown_diameter_p95_px=crown_px)
    return Plan(request, SPEC, facts, dict.fromkeys(CLASSES, 0.5), batch_size=2, tile_size=tile_size, sha256="none")
