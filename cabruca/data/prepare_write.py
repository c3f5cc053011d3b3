"""What `cabruca data prepare` writes: COCO files, the blocks as GeoJSON, and the raster of land cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.windows import Window

from cabruca.data.prepare_labels import Labels, without_holes
from cabruca.data.prepare_pictures import PicturePart, Placed
from cabruca.data.splits import Block
from cabruca.structures import IGNORE

STEP = 512
"""Side of the blocks that the land cover is written in, px."""

DIGITS = 2
"""Of coordinates in pixels: a hundredth."""

Row = dict[str, Any]


def coco_of(
    pictures: Sequence[tuple[PicturePart, Placed]],
    categories: Sequence[str],
    labels: Labels,
    masks: Mapping[str, str],
    *,
    boxes: bool,
) -> dict[str, Any]:
    """The COCO content of one split.

    Args:
        categories: class names, the first has id 1. labels: all of them.
        masks: raster name -> its land cover, relative to the COCO file. boxes: no outline is trusted.
    """
    images: list[Row] = []
    annotations: list[Row] = []
    ids = {name: k for k, name in enumerate(categories, 1)}
    for ident, (part, placed) in enumerate(pictures, 1):
        images.append(_image(ident, part, masks.get(part.ortho.name)))
        for k, crowd in [*((k, 0) for k in part.crowns), *((k, 1) for k in part.ignored)]:
            row = _annotation(placed.shapes[k], part.window[:2], boxes=boxes)
            number = int(placed.rows[k])
            attributes = {"label": labels.numbers[number], "value": labels.values[number]} | (
                {"bbox_only": True} if boxes else {}
            )
            own = {"id": len(annotations) + 1, "image_id": ident, "category_id": ids[placed.classes[k]]}
            annotations.append({**own, **row, "iscrowd": crowd, "attributes": attributes})
    info = {"description": "written by cabruca data prepare"} | ({"annotation_type": "bbox"} if boxes else {})
    rows = [{"id": k, "name": name} for name, k in ids.items()]
    return {"info": info, "images": images, "annotations": annotations, "categories": rows}


def _image(ident: int, part: PicturePart, mask: str | None) -> Row:
    x, y, w, h = part.window
    info = part.ortho.info
    ground = shapely.set_precision(part.labelled, 10**-DIGITS)  # rounding alone may cross its lines
    size = {"width": w, "height": h, "window": [x, y, w, h], "raster_size": [info.width, info.height]}
    row = {"id": ident, "file_name": part.ortho.name, **size, "labelled": _coordinates(ground, x, y)}
    return row | ({} if mask is None else {"semantic_mask": mask})


def _coordinates(shape: shapely.Geometry, x: int, y: int) -> list[list[list[list[float]]]]:
    """Of a GeoJSON MultiPolygon, from the corner (x, y)."""
    return [
        [_points(ring, x, y).tolist() for ring in (polygon.exterior, *polygon.interiors)]
        for polygon in shapely.get_parts(shape)
        if polygon.geom_type == "Polygon"
    ]


def _points(ring: shapely.Geometry, x: int, y: int) -> Any:
    return np.round(shapely.get_coordinates(ring) - (x, y), DIGITS)


def _annotation(shape: shapely.Geometry, corner: tuple[int, int], *, boxes: bool) -> Row:
    x0, y0, x1, y1 = (round(v, DIGITS) for v in (np.array(shape.bounds) - (*corner, *corner)).tolist())
    box = [x0, y0, round(max(x1 - x0, 0.01), DIGITS), round(max(y1 - y0, 0.01), DIGITS)]
    if boxes:
        outline = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    else:
        outline = [_points(p.exterior, *corner)[:-1].reshape(-1).tolist() for p in without_holes(shape)]
    return {"bbox": box, "segmentation": outline, "area": round(float(shape.area), DIGITS)}


def blocks_geojson(blocks: Sequence[Block], crs: rasterio.crs.CRS, facts: Sequence[Row]) -> dict[str, Any]:
    """The blocks as QGIS opens them; `facts`: further properties of each."""
    code = crs.to_epsg()
    name = f"urn:ogc:def:crs:EPSG::{code}" if code is not None else crs.to_wkt()
    rows = [
        {
            "type": "Feature",
            "properties": {"name": b.name, "split": b.split, **({"fold": b.fold + 1} if b.fold >= 0 else {}), **extra},
            "geometry": shapely.geometry.mapping(b.shape),
        }
        for b, extra in zip(blocks, facts, strict=True)
    ]
    return {"type": "FeatureCollection", "crs": {"type": "name", "properties": {"name": name}}, "features": rows}


def write_land_cover(path: Path, placed: Placed, semantic: Sequence[str]) -> None:
    """Paint the crowns of one raster, block by block: larger ones first, so that small ones stay visible; what no label
    covers is background; outside of the labelled ground, and on labels that are ignored or no semantic class, 255.

    Blocks without labelled ground are not stored: the file reads as 255 there.
    """
    info = placed.ortho.info
    ids = [semantic.index(name) if name in semantic else IGNORE for name in placed.classes]
    order = np.argsort([-shape.area for shape in placed.shapes], kind="stable")
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    rank[[ids[k] == IGNORE for k in range(len(ids))]] += len(order)
    tree = shapely.STRtree(placed.shapes)
    shapely.prepare(placed.ground)
    profile: dict[str, Any] = {
        "driver": "GTiff", "width": info.width, "height": info.height, "count": 1, "dtype": "uint8", "nodata": IGNORE,
        "crs": placed.ortho.crs, "transform": Affine(*(info.affine or ())), "tiled": True, "blockxsize": STEP,
        "blockysize": STEP, "compress": "deflate", "sparse_ok": True, "bigtiff": "if_safer",
    }  # fmt: skip
    with rasterio.Env(GDAL_PAM_ENABLED=False), rasterio.open(path, "w", **profile) as file:
        for y in range(0, info.height, STEP):
            for x in range(0, info.width, STEP):
                w, h = min(STEP, info.width - x), min(STEP, info.height - y)
                frame = shapely.box(x, y, x + w, y + h)
                if placed.ground.intersects(frame):
                    near = tree.query(frame)
                    near = near[np.argsort(rank[near])]
                    crowns = [(placed.shapes[k], ids[k]) for k in near.tolist()]
                    file.write(_painted(placed.ground, crowns, (x, y, w, h)), 1, window=Window(x, y, w, h))


def _painted(ground: shapely.Geometry, crowns: Sequence[tuple[Any, int]], window: tuple[int, int, int, int]) -> Any:
    x, y, w, h = window
    grid = {"out_shape": (h, w), "transform": Affine(1, 0, x, 0, 1, y), "dtype": np.uint8}
    known = rasterize([(ground, 1)], **grid)
    ids = rasterize(crowns, **grid) if crowns else np.zeros((h, w), dtype=np.uint8)
    return np.where(known > 0, ids, np.uint8(IGNORE))
