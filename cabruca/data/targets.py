"""Truth of a window: crowns clipped at its edge, semantic ids, crown diameter map, canopy density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cabruca.data.augment import Geometry
from cabruca.data.crowns import CrownTable
from cabruca.data.masks import Crop, trim
from cabruca.data.raster import Rect
from cabruca.structures import CROWN_STRIDE, DENSITY_STRIDE, IGNORE, CroppedMasks, Crowns

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MovedCrowns:
    """Crowns of one window, larger ones first: boxes `[N, 4]`, labels, diameters (tile px), the share of each that is
    left inside the window, and crops (None without a mask)."""

    boxes_xyxy: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    diameter_px: npt.NDArray[np.float64]
    visible: npt.NDArray[np.float64]
    crops: list[Crop | None]

    def truth(self, min_visible_share: float) -> Crowns:
        """Those of which at least this share is left (and anything at all)."""
        sides = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        # a small tolerance: a crown that lies inside whole must not be lost to a rounding
        keep = np.flatnonzero((self.visible >= min_visible_share - 1e-6) & (sides.min(axis=1, initial=np.inf) > 0.5))
        return Crowns(
            torch.from_numpy(self.boxes_xyxy[keep].astype(np.float32)),
            torch.from_numpy(self.labels[keep]),
            CroppedMasks.from_crops([self.crops[i] for i in keep]),
            torch.from_numpy(self.diameter_px[keep].astype(np.float32)),
        )


def move_crowns(table: CrownTable, geometry: Geometry) -> MovedCrowns:
    """The picture's crowns on the tile, clipped at its edge.

    A box without a mask follows as the box of its inscribed ellipse: turned by an angle, the box around the turned
    rectangle would be too large. A mask's box is the annotated one while the crown is whole and unmixed, else the
    tight one around what is left.
    """
    rows = table.touching(geometry.window)
    rows = rows[table.labels[rows] > 0]
    matrix = geometry.matrix()
    tile_hw = geometry.tile_hw[::-1] if geometry.quarter_turn else geometry.tile_hw
    whole = _move_boxes(table.boxes_xyxy[rows], matrix)
    boxes = whole.copy()
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, tile_hw[1])
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, tile_hw[0])
    visible = _area(boxes) / np.maximum(_area(whole), 1e-9)
    inverse = _inverse(matrix)
    crops: list[Crop | None] = [None] * len(rows)
    for k, i in enumerate(rows.tolist()):
        crop = table.crop(i) if table.has_mask[i] else None
        if crop is None:
            continue
        moved = _move_crop(crop, matrix, inverse, tile_hw)
        crops[k] = moved
        left = 0 if moved is None else int(moved[2].sum())
        share = left / (table.area_px(i) * geometry.zoom**2)
        if moved is None or not geometry.exact or share < 1:
            boxes[k] = 0.0 if moved is None else _box(moved)
        visible[k] = min(1.0, share)
    return MovedCrowns(
        boxes, table.labels[rows], np.array([table.diameter(i) for i in rows.tolist()]) * geometry.zoom, visible, crops
    )


def _box(crop: Crop) -> tuple[int, int, int, int]:
    x, y, bitmap = crop
    return x, y, x + bitmap.shape[1], y + bitmap.shape[0]


def _area(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def _move_boxes(boxes: npt.NDArray[np.float64], m: Matrix) -> npt.NDArray[np.float64]:
    """Boxes of the moved inscribed ellipses: the half extents of a moved ellipse with half axes a, b are the lengths
    of the rows of L diag(a, b). For flips, quarter turns and zooms that is the moved box itself."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ m[:, :2].T + m[:, 2]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    extent = np.sqrt((half[:, None, :] * m[None, :, :2]) ** 2 @ np.ones(2))
    return np.concatenate([centre - extent, centre + extent], axis=1)


def _inverse(m: Matrix) -> Matrix:
    linear = np.linalg.inv(m[:, :2])
    return np.concatenate([linear, -(linear @ m[:, 2:])], axis=1)


def _move_crop(crop: Crop, matrix: Matrix, inverse: Matrix, tile_hw: tuple[int, int]) -> Crop | None:
    """The bitmap on the tile: each tile pixel looks up the picture pixel that its centre comes from."""
    x, y, bitmap = crop
    h, w = bitmap.shape
    corners = np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h]]) @ matrix[:, :2].T + matrix[:, 2]
    low = np.maximum(np.floor(corners.min(axis=0) + 1e-6), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0) - 1e-6), tile_hw[::-1]).astype(int)
    if (high <= low).any():
        return None
    tx, ty = np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5
    if abs(inverse[0, 1]) < 1e-12:  # upright: rows and columns are looked up apart
        column = np.floor(inverse[0, 0] * tx + inverse[0, 2]).astype(np.intp) - x
        row = np.floor(inverse[1, 1] * ty + inverse[1, 2]).astype(np.intp) - y
        found = bitmap[row.clip(0, h - 1)[:, None], column.clip(0, w - 1)[None, :]]
        inside = ((row >= 0) & (row < h))[:, None] & ((column >= 0) & (column < w))[None, :]
    else:
        columns = (
            np.floor(inverse[0, 0] * tx[None, :] + inverse[0, 1] * ty[:, None] + inverse[0, 2]).astype(np.intp) - x
        )
        rows = np.floor(inverse[1, 0] * tx[None, :] + inverse[1, 1] * ty[:, None] + inverse[1, 2]).astype(np.intp) - y
        found = bitmap[rows.clip(0, h - 1), columns.clip(0, w - 1)]
        inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    return trim((int(low[0]), int(low[1]), found * inside.astype(np.uint8)))


def paint_semantic(table: CrownTable, window: Rect) -> npt.NDArray[np.uint8]:
    """Semantic ids of a window from the annotations: larger ones first, so that small crowns stay visible; what no
    annotation covers is background. Boxes without a mask, crowds, ignored categories and crown classes without a
    semantic id are painted last, as unknown (255)."""
    x, y, w, h = window
    out = np.zeros((h, w), dtype=np.uint8)
    rows = table.touching(window)
    unknown = table.semantic[rows] == IGNORE
    for i in [*rows[~unknown].tolist(), *rows[unknown].tolist()]:
        crop = table.crop(i) if table.has_mask[i] else None
        cx, cy, bitmap = crop if crop is not None else _rectangle(table.boxes_xyxy[i])
        x0, y0, x1, y1 = max(cx, x), max(cy, y), min(cx + bitmap.shape[1], x + w), min(cy + bitmap.shape[0], y + h)
        if x1 > x0 and y1 > y0:
            part = bitmap[y0 - cy : y1 - cy, x0 - cx : x1 - cx] > 0
            out[y0 - y : y1 - y, x0 - x : x1 - x][part] = table.semantic[i]
    return out


def _rectangle(box: npt.NDArray[np.float64]) -> Crop:
    x0, y0 = (int(v) for v in np.floor(box[:2]))
    x1, y1 = (int(v) for v in np.ceil(box[2:]))
    return x0, y0, np.ones((y1 - y0, x1 - x0), dtype=np.uint8)


def diameter_map(crowns: MovedCrowns, tile_hw: tuple[int, int]) -> Tensor | None:
    """float32 `[H/4, W/4]`: the diameter of the crown whose mask holds the pixel right below the cell's centre, smaller
    crowns over larger; 0 where there is none. None when no crown has a mask. Crowns that are mostly cut off count too:
    what is left of them still shows a crown of that diameter."""
    if all(crop is None for crop in crowns.crops):
        return None
    step, half = CROWN_STRIDE, CROWN_STRIDE // 2
    out = np.zeros((tile_hw[0] // step, tile_hw[1] // step), dtype=np.float32)
    for crop, diameter in zip(crowns.crops, crowns.diameter_px, strict=True):
        if crop is None:
            continue
        x, y, bitmap = crop
        first_x, first_y = -(-(x - half) // step), -(-(y - half) // step)
        part = bitmap[first_y * step + half - y :: step, first_x * step + half - x :: step] > 0
        out[first_y : first_y + part.shape[0], first_x : first_x + part.shape[1]][part] = diameter
    return torch.from_numpy(out)


def density_map(semantic: Tensor, tree_ids: Sequence[int]) -> Tensor:
    """float32 `[H/32, W/32]`: share of a cell's known pixels that show trees; -1 where under half of it is known."""
    cells = semantic.unfold(0, DENSITY_STRIDE, DENSITY_STRIDE).unfold(1, DENSITY_STRIDE, DENSITY_STRIDE).flatten(2)
    known = (cells != IGNORE).sum(dim=2)
    tree = torch.zeros(256, dtype=torch.bool)
    tree[list(tree_ids)] = True
    covered = tree[cells.long()].sum(dim=2)
    share = covered / known.clamp(min=1)
    return torch.where(known * 2 < DENSITY_STRIDE**2, torch.full_like(share, -1.0), share)
