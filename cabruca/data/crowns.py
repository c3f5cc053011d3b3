"""The annotations of one picture as arrays, on the grid that windows are read from."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cabruca.data.classes import Meaning, semantic_or_ignored
from cabruca.data.coco import Image
from cabruca.data.masks import Crop
from cabruca.structures import IGNORE

CROPS_BYTES = 256 << 20
"""Painted bitmaps kept per set of pictures, over all of its pictures."""

_OVERHEAD = 256
"""Bytes of an entry besides its bitmap: key, tuple and array header."""

NOT_IGNORED = -1


class CropCache:
    """Painted bitmaps of a set of pictures within one budget of bytes; the least recently used go first."""

    def __init__(self, limit_bytes: int = CROPS_BYTES) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[tuple[int, int], Crop | None] = OrderedDict()
        self.held_bytes = 0

    def __contains__(self, key: tuple[int, int]) -> bool:
        return key in self._kept

    def get(self, key: tuple[int, int]) -> Crop | None:
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: tuple[int, int], crop: Crop | None) -> None:
        self._kept[key] = crop
        self.held_bytes += _bytes(crop)
        while self.held_bytes > self._limit and len(self._kept) > 1:
            self.held_bytes -= _bytes(self._kept.popitem(last=False)[1])


def _bytes(crop: Crop | None) -> int:
    return _OVERHEAD + (0 if crop is None else crop[2].nbytes)


class CrownTable:
    """Annotations of one picture, N rows, larger ones first.

    Attributes:
        boxes_xyxy: float64 `[N, 4]`, grid px, clipped at the picture. labels: int64 `[N]`, 0 = not a crown (painted
        only, a crowd, ignored). semantic: int64 `[N]`, the id painted, 255 = unknown there. has_mask: bool `[N]`.
        diameter_px: float64 `[N]`, as annotated, NaN where it follows from the mask. ignored: int64 `[N]`, the class
        that a crowd is of, 0 for an ignored category (it may show any class), NOT_IGNORED for all other rows.
    """

    def __init__(
        self,
        image: Image,
        meanings: Mapping[int, Meaning | None],
        grid_hw: tuple[int, int],
        gsd_m: float | None,
        *,
        crops: CropCache | None = None,
        number: int = 0,
    ) -> None:
        """`gsd_m`: metres a grid pixel, None = unknown; `crops`: keeps bitmaps, under the picture's `number`."""
        sx, sy = grid_hw[1] / image.width, grid_hw[0] / image.height
        boxes = np.array([a.box_xyxy_px for a in image.annotations], dtype=np.float64).reshape(-1, 4)
        boxes *= (sx, sy, sx, sy)
        boxes[:, 0::2] = boxes[:, 0::2].clip(0, grid_hw[1])
        boxes[:, 1::2] = boxes[:, 1::2].clip(0, grid_hw[0])
        size = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        order = np.argsort(-size, kind="stable")
        order = order[size[order] > 0]  # a box that lies outside the picture; `data check` names it
        self._rows = [image.annotations[i] for i in order]
        self._size_hw, self._grid_hw = (image.height, image.width), grid_hw
        self.boxes_xyxy = boxes[order]
        found = [meanings[a.category_id] for a in self._rows]
        crowd = np.array([a.crowd for a in self._rows], dtype=bool)
        self.has_mask = np.array([a.outline is not None for a in self._rows], dtype=bool)
        self.labels = np.array([0 if m is None else m.label for m in found], dtype=np.int64)
        self.ignored = np.where(crowd & (self.labels > 0), self.labels, NOT_IGNORED)
        self.ignored[[m is None for m in found]] = 0
        self.labels[crowd] = 0
        self.semantic = np.array([semantic_or_ignored(m) for m in found], dtype=np.int64)
        self.semantic[crowd | ~self.has_mask] = IGNORE
        self.diameter_px = np.array([self._annotated_diameter(i, gsd_m) for i in range(len(order))], dtype=np.float64)
        self._areas = np.full(len(order), np.nan)
        self._crops = CropCache() if crops is None else crops
        self._number = number

    def __len__(self) -> int:
        return len(self._rows)

    def touching(self, window: tuple[int, int, int, int]) -> npt.NDArray[np.int64]:
        """Rows whose box shares area with the window (x, y, w, h)."""
        x, y, w, h = window
        b = self.boxes_xyxy
        return np.flatnonzero((b[:, 0] < x + w) & (b[:, 2] > x) & (b[:, 1] < y + h) & (b[:, 3] > y))

    def crop(self, i: int) -> Crop | None:
        """The bitmap of row `i`; None when it has none."""
        key = (self._number, i)
        if key in self._crops:
            return self._crops.get(key)
        crop: Crop | None = self._rows[i].paint(self._size_hw, self._grid_hw)
        self._crops.put(key, crop)
        return crop

    def area_px(self, i: int) -> float:
        """Pixels inside the mask of row `i`, 0 without a mask."""
        if math.isnan(self._areas[i]):
            crop = self.crop(i)
            self._areas[i] = 0 if crop is None else int(crop[2].sum())
        return float(self._areas[i])

    def diameter(self, i: int) -> float:
        """Crown diameter of row `i`, grid px: as annotated, else of the circle of the mask's area, else (w + h) / 2."""
        known = float(self.diameter_px[i])
        if not math.isnan(known):
            return known
        area = self.area_px(i) if self.has_mask[i] else 0.0
        if area > 0:
            return 2.0 * math.sqrt(area / math.pi)
        x0, y0, x1, y1 = self.boxes_xyxy[i]
        return float((x1 - x0 + y1 - y0) / 2)

    def _annotated_diameter(self, i: int, gsd_m: float | None) -> float:
        value = self._rows[i].crown_diameter
        if value is not None:
            scale = math.sqrt(self._grid_hw[0] * self._grid_hw[1] / (self._size_hw[0] * self._size_hw[1]))
            return float(value / gsd_m if gsd_m is not None else value * scale)
        if self._rows[i].outline is not None:
            return math.nan
        # from the box as annotated, before it was clipped at the picture
        x0, y0, x1, y1 = self._rows[i].box_xyxy_px
        width, height = x1 - x0, y1 - y0
        return float(width * self._grid_hw[1] / self._size_hw[1] + height * self._grid_hw[0] / self._size_hw[0]) / 2
