"""The same picture, or the same ground, in train and val: validation would then measure memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from rasterio.warp import transform_bounds

from cabruca.data import raster
from cabruca.data.coco import Image
from cabruca.errors import DataError

Box = tuple[float, float, float, float]

SHARED_SHARE = 0.01
"""Two pictures show the same ground when they share more than this of the smaller one: neighbours may touch."""


def same_pictures(train_dir: Path, train: Sequence[Image], val_dir: Path, val: Sequence[Image]) -> Iterator[str]:
    """One line for each picture of val whose bytes are also in train."""
    known = {digest: image for image in train if (digest := _digest(train_dir, image))}
    for image in val:
        twin = known.get(_digest(val_dir, image) or "")
        if twin is not None:
            yield f"val picture '{image.file_name}' is the train picture '{twin.file_name}'; remove it from one of them"


def same_ground(train_dir: Path, train: Sequence[Image], val_dir: Path, val: Sequence[Image]) -> Iterator[str]:
    """One line for each picture of val that shares ground with one of train: by georeference, else by `mosaic_x`,
    `mosaic_y`."""
    here = [(image, *place) for image in train if (place := _place(train_dir, image))]
    for image in val:
        place = _place(val_dir, image)
        if place is None:
            continue
        frame, box = place
        for other, other_frame, other_box in here:
            share = _shared(box, _in_frame(other_box, other_frame, frame))
            if share > SHARED_SHARE:
                yield (
                    f"val picture '{image.file_name}' shares {share:.0%} of its ground with the train picture "
                    f"'{other.file_name}'; split by blocks of ground"
                )
                break


def _digest(folder: Path, image: Image) -> str | None:
    try:
        path = raster.resolve(folder, image.file_name, "file_name")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (DataError, OSError):
        return None  # named by the other checks


def _place(folder: Path, image: Image) -> tuple[str, Box] | None:
    """A frame of reference (a CRS, or "mosaic") and the picture's box in it."""
    try:
        found = raster.info(raster.resolve(folder, image.file_name, "file_name"))
    except DataError:
        return None
    if found.crs is not None and found.bounds is not None:
        return found.crs, found.bounds
    if image.mosaic_xy_px is not None:
        x, y = image.mosaic_xy_px
        return "mosaic", (x, y, x + image.width, y + image.height)
    return None


def _in_frame(box: Box, frame: str, wanted: str) -> Box | None:
    if frame == wanted:
        return box
    if "mosaic" in (frame, wanted):
        return None
    moved = transform_bounds(frame, wanted, *box)
    return moved[0], moved[1], moved[2], moved[3]


def _shared(a: Box, b: Box | None) -> float:
    """Shared area over the smaller box's area."""
    if b is None:
        return 0.0
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
