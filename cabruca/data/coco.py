"""COCO annotation files, read strictly.

Understood beyond plain COCO: `images[].gsd_m`, `.semantic_mask`, `.mosaic_x/.mosaic_y`; an annotation's
`crown_diameter` (metres where the picture's ground sampling distance is known, else pixels; also accepted inside
`attributes`), `attributes.bbox_only`, and `info.annotation_type: bbox` (all annotations are boxes only); pictures that
are a part of a raster, and ground that nobody labelled (`part.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cabruca.data.masks import Crop, Points, paint_polygons, paint_rle
from cabruca.data.part import Labelled, Part, read_labelled, read_part
from cabruca.errors import DataError


@dataclass(frozen=True)
class Rle:
    """A run-length coded mask: rows and columns of its picture, and the runs (compressed string or list)."""

    size_hw: tuple[int, int]
    counts: str | tuple[int, ...]


@dataclass(frozen=True)
class Annotation:
    """One crown or region.

    Attributes:
        box_xyxy_px: as annotated. outline: polygons `[K, 2]`, a run-length code, or None for a box only.
        crown_diameter: as annotated (see the module), or None. crowd: a group, not one crown.
    """

    id: int
    category_id: int
    box_xyxy_px: tuple[float, float, float, float]
    outline: tuple[Points, ...] | Rle | None
    crown_diameter: float | None
    crowd: bool

    def paint(self, size_hw: tuple[int, int], grid_hw: tuple[int, int]) -> Crop | None:
        """The crown's bitmap on the grid (the picture of `size_hw` seen as `grid_hw`); None without a mask."""
        if self.outline is None:
            return None
        if isinstance(self.outline, Rle):
            return paint_rle(self.outline.counts, self.outline.size_hw, grid_hw)
        return paint_polygons(self.outline, grid_hw, (grid_hw[1] / size_hw[1], grid_hw[0] / size_hw[0]))


@dataclass(frozen=True)
class Image:
    """One picture of the file; `annotations` are its own.

    Attributes:
        semantic_mask: relative to the images folder, of a part of a raster to the folder of the COCO file; it is read
            through the picture's window. part: where the picture lies on its raster, None: it is the whole file.
        labelled: where it is labelled, None: everywhere.
    """

    id: int
    file_name: str
    height: int
    width: int
    gsd_m: float | None
    semantic_mask: str | None
    mosaic_xy_px: tuple[int, int] | None
    annotations: tuple[Annotation, ...]
    part: Part | None = None
    labelled: Labelled | None = None

    @property
    def raster_hw(self) -> tuple[int, int]:
        """Rows and columns of the file."""
        return (self.height, self.width) if self.part is None else self.part.raster_wh[::-1]

    @property
    def window(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the picture on its file."""
        return (0, 0, self.width, self.height) if self.part is None else self.part.window


@dataclass(frozen=True)
class Coco:
    """A whole file. `categories`: id -> name. `box_annotated`: none of its annotations has a mask."""

    path: Path
    images: tuple[Image, ...]
    categories: Mapping[int, str]
    box_annotated: bool


def read_coco(path: str | Path) -> Coco:
    """Parse the file.

    Raises:
        DataError: it is missing, is not JSON, lacks a key, or refers to a picture or category that is not there.
    """
    path = Path(path)
    raw = _read_json(path)
    info = raw.get("info")
    only_boxes = isinstance(info, dict) and info.get("annotation_type") == "bbox"
    categories = {
        _int(path, c, "category", "id"): _text(path, c, "category", "name") for c in _rows(path, raw, "categories")
    }
    sizes: dict[int, tuple[int, int]] = {}
    for row in _rows(path, raw, "images"):
        ident = _int(path, row, "image", "id")
        if ident in sizes:
            raise DataError(f"{path}: image id {ident} occurs twice; ids must be unique")
        sizes[ident] = (_size(path, row, "height"), _size(path, row, "width"))
    by_image: dict[int, list[Annotation]] = {ident: [] for ident in sizes}
    for row in _rows(path, raw, "annotations"):
        ident = _int(path, row, "annotation", "image_id")
        if ident not in sizes:
            raise DataError(
                f"{path}: annotation {row.get('id')} has image_id {ident}, which no image has; "
                "remove it or add the image"
            )
        by_image[ident].append(_annotation(path, row, categories, sizes[ident], only_boxes))
    images = tuple(_image(path, row, sizes, by_image) for row in raw["images"])
    masks = any(a.outline is not None and not a.crowd for rows in by_image.values() for a in rows)
    return Coco(path, images, categories, box_annotated=only_boxes or not masks)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"annotation file '{path}' is not there; check the path (data.*_annotations)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"annotation file '{path}' cannot be read ({error}); give a COCO JSON file") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"annotation file '{path}' is not valid JSON ({error}); write it anew") from error
    if not isinstance(raw, dict):
        raise DataError(
            f"annotation file '{path}' holds a {type(raw).__name__}; "
            "a COCO file is an object with images, annotations and categories"
        )
    return raw


def _rows(path: Path, raw: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = raw.get(key)
    if not isinstance(rows, list) or any(not isinstance(r, dict) for r in rows):
        raise DataError(
            f"{path}: '{key}' is missing or is no list of objects; a COCO file has images, annotations and categories"
        )
    return rows


def _get(path: Path, row: dict[str, Any], kind: str, key: str) -> Any:
    if key not in row:
        raise DataError(f"{path}: {kind} {row.get('id', row)} lacks '{key}'; every {kind} needs it")
    return row[key]


def _int(path: Path, row: dict[str, Any], kind: str, key: str) -> int:
    value = _get(path, row, kind, key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{path}: {kind} {row.get('id')} has {key} {value!r}; it must be an integer")
    return value


def _text(path: Path, row: dict[str, Any], kind: str, key: str) -> str:
    value = _get(path, row, kind, key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{path}: {kind} {row.get('id')} has {key} {value!r}; it must be a text")
    return value


def _size(path: Path, row: dict[str, Any], key: str) -> int:
    value = _int(path, row, "image", key)
    if value < 1:
        raise DataError(f"{path}: image {row.get('id')} has {key} {value}; it must be at least 1")
    return value


def _positive(path: Path, kind: str, row: dict[str, Any], key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise DataError(
            f"{path}: {kind} {row.get('id')} has {key} {value!r}; it must be a number above 0, or be left out"
        )
    return float(value)


def _image(
    path: Path, row: dict[str, Any], sizes: Mapping[int, tuple[int, int]], by_image: Mapping[int, list[Annotation]]
) -> Image:
    ident = row["id"]
    x, y = row.get("mosaic_x"), row.get("mosaic_y")
    mask = row.get("semantic_mask")
    if mask is not None and not isinstance(mask, str):
        raise DataError(f"{path}: image {ident} has semantic_mask {mask!r}; it must be a file name")
    return Image(
        id=ident,
        file_name=_text(path, row, "image", "file_name"),
        height=sizes[ident][0],
        width=sizes[ident][1],
        gsd_m=_positive(path, "image", row, "gsd_m", row.get("gsd_m")),
        semantic_mask=mask,
        mosaic_xy_px=(x, y) if isinstance(x, int) and isinstance(y, int) else None,
        annotations=tuple(by_image[ident]),
        part=read_part(path, row, sizes[ident]),
        labelled=read_labelled(path, row, sizes[ident]),
    )


def _annotation(
    path: Path, row: dict[str, Any], categories: Mapping[int, str], size_hw: tuple[int, int], only_boxes: bool
) -> Annotation:
    category = _int(path, row, "annotation", "category_id")
    if category not in categories:
        raise DataError(
            f"{path}: annotation {row.get('id')} has category_id {category}, which no category has; add the category"
        )
    extra = row.get("attributes")
    attributes: dict[str, Any] = extra if isinstance(extra, dict) else {}
    outline = None
    if not (only_boxes or _flag(path, row, "bbox_only", attributes.get("bbox_only"))):
        outline = _outline(path, row, size_hw)
    diameter = row.get("crown_diameter", attributes.get("crown_diameter"))
    return Annotation(
        id=_int(path, row, "annotation", "id"),
        category_id=category,
        box_xyxy_px=_box(path, row),
        outline=outline,
        crown_diameter=_positive(path, "annotation", row, "crown_diameter", diameter),
        crowd=_flag(path, row, "iscrowd", row.get("iscrowd")),
    )


def _flag(path: Path, row: dict[str, Any], key: str, value: Any) -> bool:
    """Annotation tools write true, 1, "1" or "true"; a text is not true because it is a text."""
    said = {"": False, "0": False, "false": False, "no": False, "none": False, "1": True, "true": True, "yes": True}
    text = str(value if value is not None else "").strip().lower()
    if text not in said:
        raise DataError(f"{path}: annotation {row.get('id')} has {key} {value!r}; it must be true or false")
    return said[text]


def _box(path: Path, row: dict[str, Any]) -> tuple[float, float, float, float]:
    box = _get(path, row, "annotation", "bbox")
    numbers = (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in box)
    )
    if not numbers or box[2] <= 0 or box[3] <= 0:
        raise DataError(
            f"{path}: annotation {row.get('id')} has bbox {box!r}; "
            "it must be [x, y, width, height] with width and height above 0"
        )
    return float(box[0]), float(box[1]), float(box[0] + box[2]), float(box[1] + box[3])


def _outline(path: Path, row: dict[str, Any], size_hw: tuple[int, int]) -> tuple[Points, ...] | Rle | None:
    found = row.get("segmentation")
    if not found:
        return None
    wrong = DataError(
        f"{path}: annotation {row.get('id')} has a segmentation that is neither polygons [[x1, y1, ...]] of 3 or more "
        "points nor an RLE {size, counts}; mend it, or set attributes.bbox_only: true"
    )
    if isinstance(found, dict):
        size, counts = found.get("size"), found.get("counts")
        if not isinstance(counts, str | list) or not isinstance(size, list):
            raise wrong
        if not isinstance(counts, str) and any(isinstance(n, bool) or not isinstance(n, int) for n in counts):
            raise DataError(
                f"{path}: annotation {row.get('id')} has an RLE whose runs are not all whole numbers; write it anew"
            )
        if tuple(size) != size_hw:
            raise DataError(
                f"{path}: annotation {row.get('id')} has an RLE of size {size} on a picture of "
                f"{list(size_hw)} (height, width); they must be equal"
            )
        return Rle(size_hw, counts if isinstance(counts, str) else tuple(counts))
    try:
        polygons = tuple(np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in found)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if any(len(p) < 3 or not np.isfinite(p).all() for p in polygons):
        raise wrong
    return polygons
