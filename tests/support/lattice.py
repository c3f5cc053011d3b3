"""A network that sees a disc of 28 px in every square of 40 px, on a raster of any size; a process that maps them."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from perfect import CLASSES, plan_of
from rasterio.windows import Window

from cabruca.crops import CroppedMasks
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run
from cabruca.structures import Batch, Prediction

STEP, RADIUS = 40, 14
ROWS_AT_ONCE = 256

_ys, _xs = np.mgrid[: 2 * RADIUS, : 2 * RADIUS] + 0.5 - RADIUS
DISC = (_xs**2 + _ys**2 <= RADIUS**2).astype(np.uint8)


class Lattice:
    """A `Network`; bands 1 and 2 hold column and row of each pixel."""

    def __call__(self, batch: Batch) -> list[Prediction]:
        return [self._see(batch.images[b], hw) for b, hw in enumerate(batch.sizes_hw_px)]

    @staticmethod
    def _see(image: torch.Tensor, hw: tuple[int, int]) -> Prediction:
        left, top = int(image[0, 0, 0]), int(image[1, 0, 0])
        crops: list[Any] = []
        for y in range(top // STEP * STEP, top + hw[0], STEP):
            for x in range(left // STEP * STEP, left + hw[1], STEP):
                x0, y0 = x + STEP // 2 - RADIUS - left, y + STEP // 2 - RADIUS - top
                x1, y1 = min(x0 + 2 * RADIUS, hw[1]), min(y0 + 2 * RADIUS, hw[0])
                part = DISC[max(0, -y0) : max(0, y1 - y0), max(0, -x0) : max(0, x1 - x0)]
                if part.any():
                    crops.append((max(0, x0), max(0, y0), part))
        boxes = [[x, y, x + m.shape[1], y + m.shape[0]] for x, y, m in crops]
        n = len(crops)
        return Prediction(
            boxes_xyxy_px=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            scores=torch.full((n,), 0.9),
            labels=torch.ones(n, dtype=torch.int64),
            masks=CroppedMasks.from_crops(crops),
            semantic=torch.zeros(hw, dtype=torch.uint8),
            crown_diameter_px=None,
            density=torch.zeros(-(-hw[0] // 32), -(-hw[1] // 32)),
        )


def write_places(path: Path, side: int) -> Path:
    """A uint16 GeoTIFF of `side` x `side` whose bands are column, row and 0, written row by row."""
    profile: dict[str, Any] = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "uint16"}
    with rasterio.open(path, "w", **profile, tiled=True, blockxsize=256, blockysize=256) as out:
        for y in range(0, side, ROWS_AT_ONCE):
            ys, xs = np.mgrid[y : min(y + ROWS_AT_ONCE, side), :side].astype(np.uint16)
            out.write(np.stack([xs, ys, np.zeros_like(xs)]), window=Window(0, y, side, len(ys)))
    return path


def main() -> None:
    """`lattice.py RASTER OUT RASTERS`: crowns and MB at the peak, as JSON."""
    image, out, rasters = map(Path, sys.argv[1:4])
    torch.set_num_threads(1)
    done = run(plan_of([image], out, tile_size=256, overlap=64, raster_out=rasters), InProcess(Lattice()))
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"crowns": done.crowns, "mb": mb, "seconds": done.seconds, "classes": list(CLASSES)}))


if __name__ == "__main__":
    main()
