"""The image behind the map of crowns, read small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cabruca.data import raster
from cabruca.data.placing import Plane
from cabruca.errors import DataError

LONGEST_PX = 1400


@dataclass(frozen=True)
class Backdrop:
    """uint8 `[h, w, 3]`, and left, right, bottom, top in metres of the map's plane."""

    rgb: npt.NDArray[np.uint8]
    extent_m: tuple[float, float, float, float]


def backdrop(path: str | Path, plane: Plane) -> Backdrop:
    """An image for the map of a plane; rotated images are drawn in their bounds, as if they were north up.

    Raises:
        DataError: it cannot be read, has no CRS, or has another one than the map.
    """
    info = raster.info(Path(path))
    if info.bounds is None or info.crs is None:
        raise DataError(f"--image {path} has no crs, so it cannot lie behind the map; leave it out")
    if not raster.same_crs(info.crs, plane.crs):
        raise DataError(f"--image {path} has another crs than the map; give the image that was predicted on")
    zoom = min(1.0, LONGEST_PX / max(info.height, info.width))
    hw = max(1, round(info.height * zoom)), max(1, round(info.width * zoom))
    bands = (1, 2, 3) if info.count >= 3 else (1, 1, 1)
    pixels, valid = raster.read(Path(path), bands, (0, 0, hw[1], hw[0]), grid_hw=hw)
    values = pixels.astype(np.float64)
    inside = values[:, valid] if valid.any() else values.reshape(3, -1)
    low, high = (0.0, 255.0) if info.dtype == "uint8" else np.quantile(inside, [0.02, 0.98]).tolist()
    rgb = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
    rgb[:, ~valid] = 255
    left, bottom, right, top = info.bounds
    mx, my = plane.metres_xy
    return Backdrop(rgb.transpose(1, 2, 0).astype(np.uint8), (left * mx, right * mx, bottom * my, top * my))
