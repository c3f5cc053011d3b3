"""Truth of a window: crowns clipped at its edge, semantic ids, crown diameter map, canopy density."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cabruca.data.augment import Geometry
from cabruca.data.crowns import NOT_IGNORED, CrownTable
from cabruca.data.masks import Crop, trim
from cabruca.data.raster import Rect
from cabruca.structures import (
    CROWN_STRIDE,
    DENSITY_STRIDE,
    ENOUGH_KNOWN,
    IGNORE,
    CroppedMasks,
    Crowns,
    Regions,
    known_share,
)

Matrix = npt.NDArray[np.float64]

CENTRE_STEPS = 64
"""Steps a pixel that crown centres are rounded to: binary, so that float32 holds them exactly in every window, and a
crown on the line between two cores is counted by one of them."""


@dataclass(frozen=True)
class MovedCrowns:
    """Crowns of one window, larger ones first: boxes `[N, 4]`, labels, diameters (tile px), centres `[N, 2]` of the
    whole crowns' boxes, the share of each that is left inside the window, and crops (None without a mask)."""

    boxes_xyxy: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    diameter_px: npt.NDArray[np.float64]
    centre_xy: npt.NDArray[np.float64]
    visible: npt.NDArray[np.float64]
    crops: list[Crop | None]

    def truth(
        self,
        min_visible_share: float,
        valid: Tensor,
        ignored: Regions,
        core_xyxy: tuple[int, int, int, int] | None = None,
    ) -> Crowns:
        """Those of which at least this share is left (and anything at all), and in a grid those whose centre lies in
        the core. A crown that lies mostly on NoData becomes an ignored region: it can be neither seen nor missed.

        Args:
            valid: bool `[H, W]`, pixels whose truth is known; ignored: the window's other ignored regions.
        """
        sides = self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]
        # a small tolerance: a crown that lies inside whole must not be lost to a rounding
        wanted = (self.visible >= min_visible_share - 1e-6) & (sides.min(axis=1, initial=np.inf) > 0.5)
        if core_xyxy is not None:
            low, high = core_xyxy[:2], core_xyxy[2:]
            wanted |= ((self.centre_xy >= low) & (self.centre_xy < high)).all(axis=1) & (sides > 0).all(axis=1)
        keep = np.flatnonzero(wanted)
        boxes = torch.from_numpy(self.boxes_xyxy[keep].astype(np.float32))
        if len(keep) and not bool(valid.all()):
            seen = (known_share(boxes, valid) >= ENOUGH_KNOWN).numpy()
            lost = keep[~seen]
            if len(lost):
                ignored = _joined(ignored, self.boxes_xyxy[lost], self.labels[lost], [self.crops[i] for i in lost])
                keep, boxes = keep[seen], boxes[torch.from_numpy(seen)]
        return Crowns(
            boxes,
            torch.from_numpy(self.labels[keep]),
            CroppedMasks.from_crops([self.crops[i] for i in keep]),
            torch.from_numpy(self.diameter_px[keep].astype(np.float32)),
            torch.from_numpy(self.centre_xy[keep].astype(np.float32)),
            ignored,
        )


def _joined(
    regions: Regions, boxes: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], crops: Sequence[Crop | None]
) -> Regions:
    own = CroppedMasks.from_crops(crops)
    return Regions(
        torch.cat([regions.boxes_xyxy_px, torch.from_numpy(boxes.astype(np.float32))]),
        torch.cat([regions.labels, torch.from_numpy(labels)]),
        CroppedMasks.together([regions.masks, own]),
    )


def move_crowns(table: CrownTable, geometry: Geometry) -> MovedCrowns:
    """The picture's crowns on the tile, clipped at its edge.

    A box without a mask follows as the box of its inscribed ellipse: turned by an angle, the box around the turned
    rectangle would be too large. A mask's box is the annotated one while the crown is whole and unmixed, else the
    tight one around what is left.
    """
    rows = table.touching(geometry.window)
    return _move(table, rows[table.labels[rows] > 0], geometry)


def move_regions(table: CrownTable, geometry: Geometry) -> Regions:
    """The picture's crowds and ignored categories on the tile, whatever is left of them."""
    rows = table.touching(geometry.window)
    rows = rows[table.ignored[rows] != NOT_IGNORED]
    if len(rows) == 0:
        return Regions.empty()
    moved = _move(table, rows, geometry)
    left = np.flatnonzero((moved.boxes_xyxy[:, 2:] > moved.boxes_xyxy[:, :2]).all(axis=1) & (moved.visible > 0))
    crops = [moved.crops[i] for i in left]
    return _joined(Regions.empty(), moved.boxes_xyxy[left], table.ignored[rows[left]], crops)


def _move(table: CrownTable, rows: npt.NDArray[np.int64], geometry: Geometry) -> MovedCrowns:
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
    diameter = np.array([table.diameter(i) for i in rows.tolist()]) * geometry.zoom
    centre = np.round((whole[:, :2] + whole[:, 2:]) / 2 * CENTRE_STEPS) / CENTRE_STEPS
    return MovedCrowns(boxes, table.labels[rows], diameter, centre, visible, crops)


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


def diameter_map(crowns: MovedCrowns, valid: Tensor) -> Tensor | None:
    """float32 `[H/4, W/4]`: the diameter of the crown whose mask holds the pixel right below the cell's centre, smaller
    crowns over larger; 0 where there is none, and where that pixel is not `valid` (bool `[H, W]`). None when no crown
    has a mask. Crowns that are mostly cut off count too: what is left of them still shows a crown of that diameter."""
    if all(crop is None for crop in crowns.crops):
        return None
    step, half = CROWN_STRIDE, CROWN_STRIDE // 2
    out = np.zeros((valid.shape[0] // step, valid.shape[1] // step), dtype=np.float32)
    for crop, diameter in zip(crowns.crops, crowns.diameter_px, strict=True):
        if crop is None:
            continue
        x, y, bitmap = crop
        first_x, first_y = -(-(x - half) // step), -(-(y - half) // step)
        part = bitmap[first_y * step + half - y :: step, first_x * step + half - x :: step] > 0
        out[first_y : first_y + part.shape[0], first_x : first_x + part.shape[1]][part] = diameter
    return torch.from_numpy(out) * valid[half::step, half::step][: out.shape[0], : out.shape[1]]


def density_map(semantic: Tensor, tree_ids: Sequence[int]) -> Tensor:
    """float32 `[H/32, W/32]`: share of a cell's known pixels that show trees; -1 where under half of it is known."""
    cells = semantic.unfold(0, DENSITY_STRIDE, DENSITY_STRIDE).unfold(1, DENSITY_STRIDE, DENSITY_STRIDE).flatten(2)
    known = (cells != IGNORE).sum(dim=2)
    tree = torch.zeros(256, dtype=torch.bool)
    tree[list(tree_ids)] = True
    covered = tree[cells.long()].sum(dim=2)
    share = covered / known.clamp(min=1)
    return torch.where(known * 2 < DENSITY_STRIDE**2, torch.full_like(share, -1.0), share)
