"""A georeferenced practice plot with exact truth: what `cabruca data synth` writes, and what the demo learns from.

The plot is one square piece of ground. Its eastern part is held out for validation, as a picture of its own.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from faster_coco_eval.core import mask as coco_mask
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.transform import Affine, from_origin

from cabruca.config.schema import INSTANCE_NAMES
from cabruca.data.synthetic_scene import Scene, draw_scene
from cabruca.errors import DataError

CRS_NAME = "EPSG:31984"
"""SIRGAS 2000 / UTM zone 24S, the zone of southern Bahia."""

ORIGIN_M = (478512.0, 8363720.0)
"""Easting and northing of the plot's north-western corner, in the cacao region inland of Ilheus."""

MIN_VISIBLE = 0.15
"""A crown of which a smaller share shows is not annotated as a crown (its pixels keep their semantic id)."""


@dataclass(frozen=True)
class PlotFiles:
    """What was written. `images_dir` is the images folder that both COCO files are relative to."""

    images_dir: Path
    train_image: Path
    val_image: Path
    train_mask: Path
    val_mask: Path
    train_annotations: Path
    val_annotations: Path
    crowns_geojson: Path
    num_train_crowns: int
    num_val_crowns: int


@dataclass(frozen=True)
class _Part:
    name: str
    columns: slice
    transform: Affine


def draw_plot(
    out_dir: str | Path, *, size_px: int = 1024, gsd_m: float = 0.1, seed: int = 0, val_share: float = 0.25
) -> PlotFiles:
    """Draw a plot of `size_px` x `size_px` at `gsd_m` metres a pixel; the same seed gives the same bytes.

    Written: `images/plot_{train,val}.tif` (RGB, tiled), `masks/plot_{train,val}.tif` (semantic ids), `train.json` and
    `val.json` (COCO; RLE of the visible part, `crown_diameter` in metres of the circle of the whole crown's area) and
    `crowns.geojson` (visible outlines in the CRS).

    Args:
        val_share: share of the plot, its eastern part, that is held out.

    Raises:
        DataError: a plot too small to hold both parts, or a folder that cannot be written.
    """
    val_px = round(size_px * val_share / 32) * 32
    if size_px < 128 or not 32 <= val_px <= size_px - 64 or gsd_m <= 0:
        raise DataError(
            f"a plot of {size_px} px at {gsd_m} m with val_share {val_share} leaves {val_px} px for validation; "
            "use 128 px or more, a size above 0 m, and a share that leaves 32 px to one part and 64 to the other"
        )
    scene = draw_scene(size_px, gsd_m, seed)
    transform = from_origin(*ORIGIN_M, gsd_m, gsd_m)
    cut = size_px - val_px
    parts = [
        _Part("train", slice(0, cut), transform),
        _Part("val", slice(cut, size_px), from_origin(ORIGIN_M[0] + cut * gsd_m, ORIGIN_M[1], gsd_m, gsd_m)),
    ]
    out = Path(out_dir)
    try:
        (out / "images").mkdir(parents=True, exist_ok=True)
        (out / "masks").mkdir(exist_ok=True)
        counts = [_write_part(out, scene, part, gsd_m) for part in parts]
        _write_geojson(out / "crowns.geojson", scene, transform, gsd_m)
    except OSError as error:
        raise DataError(f"the plot cannot be written to '{out}' ({error}); choose a folder that can") from error
    return PlotFiles(
        images_dir=out,
        train_image=out / "images/plot_train.tif",
        val_image=out / "images/plot_val.tif",
        train_mask=out / "masks/plot_train.tif",
        val_mask=out / "masks/plot_val.tif",
        train_annotations=out / "train.json",
        val_annotations=out / "val.json",
        crowns_geojson=out / "crowns.geojson",
        num_train_crowns=counts[0],
        num_val_crowns=counts[1],
    )


def _write_part(out: Path, scene: Scene, part: _Part, gsd_m: float) -> int:
    """Picture, mask and COCO file of one part; the number of crowns in it."""
    rgb, semantic = scene.rgb[:, part.columns], scene.semantic[:, part.columns]
    _write_tiff(out / f"images/plot_{part.name}.tif", np.moveaxis(rgb, 2, 0), part.transform)
    _write_tiff(out / f"masks/plot_{part.name}.tif", semantic[None], part.transform)
    annotations = _annotations(scene, scene.instance[:, part.columns], gsd_m)
    image = {
        "id": 1,
        "file_name": f"images/plot_{part.name}.tif",
        "width": semantic.shape[1],
        "height": semantic.shape[0],
        "gsd_m": gsd_m,
        "semantic_mask": f"masks/plot_{part.name}.tif",
    }
    _write_json(
        out / f"{part.name}.json",
        {
            "info": {"description": "cabruca practice plot, drawn", "annotation_type": "instance_mask"},
            "images": [image],
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(INSTANCE_NAMES)],
        },
    )
    return len(annotations)


def _annotations(scene: Scene, instance: npt.NDArray[np.int32], gsd_m: float) -> list[dict[str, Any]]:
    """COCO annotations of the crowns that show in a part of the plot."""
    out: list[dict[str, Any]] = []
    shown = np.bincount(instance.ravel(), minlength=len(scene.trees) + 1)
    for number, tree in enumerate(scene.trees, start=1):
        if shown[number] < MIN_VISIBLE * tree.area_px:
            continue
        mask = instance == number
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        x, y = int(columns[0]), int(rows[0])
        out.append(
            {
                "id": len(out) + 1,
                "image_id": 1,
                "category_id": tree.label,
                "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
                "segmentation": {"size": list(mask.shape), "counts": code["counts"].decode("ascii")},
                "area": int(shown[number]),
                "iscrowd": 0,
                "crown_diameter": _diameter_m(tree.area_px, gsd_m),
            }
        )
    return out


def _diameter_m(area_px: int, gsd_m: float) -> float:
    return round(2 * math.sqrt(area_px / math.pi) * gsd_m, 4)


def _write_tiff(path: Path, bands: npt.NDArray[np.uint8], transform: Affine) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=bands.shape[2],
        height=bands.shape[1],
        count=bands.shape[0],
        dtype="uint8",
        crs=CRS.from_string(CRS_NAME),
        transform=transform,
        tiled=True,
        blockxsize=128,
        blockysize=128,
        compress="deflate",
    ) as file:
        file.write(bands)


def _write_geojson(path: Path, scene: Scene, transform: Affine, gsd_m: float) -> None:
    """Visible outlines of the annotated crowns, one feature a crown, pixel edges in metres."""
    shown = np.bincount(scene.instance.ravel(), minlength=len(scene.trees) + 1)
    outlines: dict[int, list[Any]] = {}
    for geometry, value in shapes(scene.instance, mask=scene.instance > 0, transform=transform):
        outlines.setdefault(int(value), []).append(geometry["coordinates"])
    features = [
        {
            "type": "Feature",
            "properties": {
                "id": number,
                "class": INSTANCE_NAMES[tree.label - 1],
                "crown_diameter_m": _diameter_m(tree.area_px, gsd_m),
            },
            "geometry": {"type": "MultiPolygon", "coordinates": outlines[number]},
        }
        for number, tree in enumerate(scene.trees, start=1)
        if number in outlines and shown[number] >= MIN_VISIBLE * tree.area_px
    ]
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{CRS_NAME.replace(':', '::')}"}}
    _write_json(path, {"type": "FeatureCollection", "crs": crs, "features": features})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
