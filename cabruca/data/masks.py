"""Crown outlines to small bitmaps: COCO polygons and run-length codes, each painted in its own rectangle.

A crop is `(x, y, uint8 [h, w])`: where the rectangle lies and 1 inside the crown. Polygons are painted by the COCO
library's own rule (in the crown's rectangle, shifted by whole pixels, which changes nothing), so that areas and IoU
agree with it. Run-length codes are cut out of their columns: a crown in a mosaic never becomes a mosaic-sized array.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as coco_mask

from cabruca.errors import DataError

Bitmap = npt.NDArray[np.uint8]
Crop = tuple[int, int, Bitmap]
Points = npt.NDArray[np.float64]


def paint_polygons(polygons: Sequence[Points], grid_hw: tuple[int, int], scale_xy: tuple[float, float]) -> Crop | None:
    """Union of polygons `[K, 2]` (x, y px), multiplied by `scale_xy` first; None when no pixel is inside."""
    scaled = [p * np.asarray(scale_xy) for p in polygons]
    points = np.concatenate(scaled)
    x0, y0 = (int(v) for v in np.floor(points.min(axis=0)))
    x1, y1 = (int(v) for v in np.ceil(points.max(axis=0)))
    w, h = max(1, x1 - x0), max(1, y1 - y0)
    local = [(p - (x0, y0)).reshape(-1).tolist() for p in scaled]
    codes = coco_mask.frPyObjects(local, h, w)
    bitmap = np.ascontiguousarray(coco_mask.decode(coco_mask.merge(codes)), dtype=np.uint8)
    return trim(clip((x0, y0, bitmap), grid_hw))


def rle_counts(counts: str | Sequence[int]) -> npt.NDArray[np.int64]:
    """Run lengths, zeros first. A string is COCO's compressed form: 5 bits a character from code 48 on, sign
    extended, and from the third run on the difference to the run two before.

    Raises:
        DataError: the string ends inside a number, or a run is negative or larger than any picture.
    """
    runs = list(counts) if not isinstance(counts, str) else _unpack(counts)
    try:
        out = np.asarray(runs, dtype=np.int64)
    except OverflowError as error:
        raise DataError("an RLE has a run of more than 2^63 px; write the annotation file anew") from error
    if out.size and out.min() < 0:
        raise DataError("an RLE has a negative run; write the annotation file anew")
    return out


def _unpack(text: str) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for char in text:
        bits = ord(char) - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise DataError("a compressed RLE ends inside a number; write the annotation file anew")
    return runs


def paint_rle(counts: str | Sequence[int], size_hw: tuple[int, int], grid_hw: tuple[int, int]) -> Crop | None:
    """The crop of a run-length coded mask of `size_hw`, seen on `grid_hw`; None when it is empty.

    Raises:
        DataError: the runs do not add up to the size.
    """
    runs = rle_counts(counts)
    ends = np.cumsum(runs)
    height, width = size_hw
    if ends.size == 0 or ends[-1] != height * width:
        total = int(ends[-1]) if ends.size else 0
        raise DataError(f"an RLE covers {total} px and its size {list(size_hw)} has {height * width}; mend the file")
    first, last = ends[0:-1:2], ends[1::2]  # begin and end of each run of ones
    first, last = first[last > first], last[last > first]
    if first.size == 0:
        return None
    x0, x1 = int(first[0]) // height, (int(last[-1]) - 1) // height + 1
    steps = np.zeros((x1 - x0) * height + 1, dtype=np.int8)
    np.add.at(steps, first - x0 * height, 1)
    np.add.at(steps, last - x0 * height, -1)
    columns = np.cumsum(steps[:-1], dtype=np.int8).reshape(x1 - x0, height)
    crop = trim((x0, 0, np.ascontiguousarray(columns.T).astype(np.uint8)))
    return crop if crop is None or size_hw == grid_hw else trim(resize(crop, size_hw, grid_hw))


def resize(crop: Crop, size_hw: tuple[int, int], grid_hw: tuple[int, int]) -> Crop:
    """The crop of a picture of `size_hw` on a grid of `grid_hw`: each grid pixel takes the value at its centre."""
    x, y, bitmap = crop
    sy, sx = size_hw[0] / grid_hw[0], size_hw[1] / grid_hw[1]
    gx, gy = (
        np.arange(int(x / sx), int((x + bitmap.shape[1]) / sx) + 1),
        np.arange(int(y / sy), int((y + bitmap.shape[0]) / sy) + 1),
    )
    column, row = np.floor((gx + 0.5) * sx).astype(int) - x, np.floor((gy + 0.5) * sy).astype(int) - y
    padded = np.pad(bitmap, 1)
    column, row = np.clip(column + 1, 0, padded.shape[1] - 1), np.clip(row + 1, 0, padded.shape[0] - 1)
    return int(gx[0]), int(gy[0]), padded[np.ix_(row, column)]


def clip(crop: Crop, grid_hw: tuple[int, int]) -> Crop:
    """The part of the crop on the grid (h = 0 or w = 0 where nothing is)."""
    x, y, bitmap = crop
    h, w = bitmap.shape
    x0, y0 = max(x, 0), max(y, 0)
    return x0, y0, bitmap[y0 - y : max(y0 - y, min(h, grid_hw[0] - y)), x0 - x : max(x0 - x, min(w, grid_hw[1] - x))]


def trim(crop: Crop) -> Crop | None:
    """The crop cut to its inside pixels; None when there are none."""
    x, y, bitmap = crop
    rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
    if rows.size == 0:
        return None
    part = bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return x + int(columns[0]), y + int(rows[0]), np.ascontiguousarray(part)
