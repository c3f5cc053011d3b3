"""Small drawn data sets whose answers are known."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from cabruca.config.schema import Config, DataConfig, ModelConfig

CLASSES = [{"id": 1, "name": "cacao_tree"}, {"id": 2, "name": "shade_tree"}, {"id": 3, "name": "understory"}]


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    """bool `[height, width]`: pixels whose centre lies in the circle."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def write_raster(path: Path, bands: np.ndarray, **profile: Any) -> Path:
    """`[C, H, W]` to a GeoTIFF (or what the suffix says)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    driver = {".png": "PNG", ".jpg": "JPEG"}.get(path.suffix, "GTiff")
    mask = profile.pop("mask", None)
    shape = {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype.name}
    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", driver=driver, **shape, **profile) as file,
    ):
        file.write(bands)
        if mask is not None:
            file.write_mask(mask)
    return path


def rle(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed COCO run lengths, written out by hand: columns one after the other, zeros first."""
    flat = mask.astype(np.uint8).flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    runs = np.diff(np.concatenate([[0], edges]))
    counts = [*runs.tolist(), int(flat.size - runs.sum())]
    return {
        "size": list(mask.shape),
        "counts": [c for c in counts if c or c == counts[0]] if counts[-1] else counts[:-1],
    }


def crown(mask: np.ndarray, *, ident: int = 1, category: int = 1, image: int = 1, **extra: Any) -> dict[str, Any]:
    """A COCO annotation of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    return {"id": ident, "image_id": image, "category_id": category, "bbox": box, "segmentation": rle(mask), **extra}


def box(x: float, y: float, w: float, h: float, *, ident: int = 1, category: int = 1, image: int = 1) -> dict[str, Any]:
    """A COCO annotation by a box only."""
    corners = [x, y, x + w, y, x + w, y + h, x, y + h]
    row = {"id": ident, "image_id": image, "category_id": category, "bbox": [x, y, w, h], "segmentation": [corners]}
    return {**row, "attributes": {"bbox_only": True}}


class DataSet:
    """One picture or more in a folder, with their COCO file; train and val are the same unless told otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: list[dict[str, Any]] = []

    def picture(
        self, bands: np.ndarray, name: str = "a.tif", *, profile: dict[str, Any] | None = None, **row: Any
    ) -> None:
        write_raster(self.folder / name, bands, **(profile or {}))
        ident = len(self.images) + 1
        self.images.append({"id": ident, "file_name": name, "height": bands.shape[1], "width": bands.shape[2], **row})

    def config(self, annotations: list[dict[str, Any]], *, info: dict[str, Any] | None = None, **data: Any) -> Config:
        content = {"info": info or {}, "images": self.images, "annotations": annotations, "categories": CLASSES}
        file = self.folder / "truth.json"
        file.write_text(json.dumps(content))
        bands = data.pop("bands", (1, 2, 3))
        model = data.pop("model", ModelConfig())
        paths = {"train_dir": str(self.folder), "val_dir": str(self.folder)}
        files = {"train_annotations": str(file), "val_annotations": str(file)}
        measured = {"mean": (0.0,) * len(bands), "std": (1.0,) * len(bands)} if data.pop("plain", True) else {}
        return Config(
            model=model, data=DataConfig(**{**paths, **files, **measured, "bands": bands, "overlap": 8, **data})
        )
