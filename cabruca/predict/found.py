"""What the network says of one window, brought onto the grid and cut down to what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cabruca.data.outline import inside
from cabruca.predict.windows import STRIDE_PX, Window
from cabruca.structures import IGNORE, InputSpec, Prediction

Bitmap = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

CUT_PX = 2.0
"""A crown whose box comes this near to an edge where the raster goes on may be cut there."""

OUTLINE_PX = 8
"""Side of the cells that the ground looked at is outlined by."""


@dataclass(frozen=True)
class Found:
    """One crown as one window shows it, in grid px.

    Attributes:
        mask: `(x, y, bool [h, w])`, None where the class has only boxes. canopy_share: NaN without the semantic head.
        cut: the window's edge may have cut it. clearance: px to the nearest edge where the raster goes on.
    """

    window: int
    label: int
    score: float
    box: Box
    mask: tuple[int, int, Bools] | None
    canopy_share: float
    cut: bool
    clearance: float


@dataclass(frozen=True)
class Look:
    """All that is kept of one window.

    Attributes:
        known_px, tree_px, shade_px: pixels of the core that are known (and in the area), of a tree class, of the
            shade class; the latter None without the semantic head.
        outline: bool cells of 8 px over the core: mostly known; None: all of it.
        semantic: uint8 over the core, 255 unknown; density, shade: float32 over the 32 px cells whose centre lies in
            the core, -1 unknown, and the first cell's (row, column); None where not wanted or not there.
    """

    window: Window
    crowns: list[Found]
    known_px: int
    tree_px: int | None
    shade_px: int | None
    outline: Bools | None
    semantic: Bitmap | None = None
    density: npt.NDArray[np.float32] | None = None
    shade: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Reading:
    """How predictions become looks; the same in every process.

    Attributes:
        hw: of the grid. thresholds: label -> score from which on a crown is kept. tree_ids: semantic ids of the
            instance classes; shade_id: of `shade_tree`, None where there is no such class.
        planes: keep the dense outputs. area: geometry in grid px, None: all. dense: whether the dense heads mean
            anything.
    """

    hw: tuple[int, int]
    thresholds: Mapping[int, float]
    tree_ids: tuple[int, ...]
    shade_id: int | None
    planes: bool
    area: Any = None
    dense: bool = True

    @classmethod
    def of(
        cls,
        hw: tuple[int, int],
        spec: InputSpec,
        score: Mapping[str, float],
        *,
        planes: bool,
        area: Any = None,
        dense: bool = True,
    ) -> Reading:
        names = spec.semantic_classes
        labels = {k: score[name] for k, name in enumerate(spec.instance_classes, 1)}
        trees = tuple(names.index(n) for n in spec.instance_classes if n in names)
        shade = names.index("shade_tree") if "shade_tree" in names else None
        return cls(hw, labels, trees, shade, planes, area, dense)

    def look(self, window: Window, prediction: Prediction, valid: Bools) -> Look:
        """`valid`: bool `[h, w]` of the window, NoData False."""
        if not self.dense:
            prediction = replace(prediction, semantic=None, density=None)
        semantic = None if prediction.semantic is None else prediction.semantic.numpy()
        tree = None if semantic is None else np.isin(semantic, self.tree_ids)
        known = valid if self.area is None else valid & inside(self.area, *window.rect)
        core = _within(window)
        return Look(
            window=window,
            crowns=self._crowns(window, prediction, tree),
            known_px=int(known[core].sum()),
            tree_px=None if tree is None else int((known & tree)[core].sum()),
            shade_px=self._shade_px(semantic, known[core], core),
            outline=_cells(valid[core]),
            **(self._planes(window, prediction, known) if self.planes else {}),
        )

    def _shade_px(self, semantic: Bitmap | None, known: Bools, core: Any) -> int | None:
        if semantic is None or self.shade_id is None:
            return None
        return int((known & (semantic[core] == self.shade_id)).sum())

    def _crowns(self, window: Window, prediction: Prediction, tree: Bools | None) -> list[Found]:
        x0, y0, x1, y1 = window.box
        height, width = self.hw
        open_edges = (x0 > 0, y0 > 0, x1 < width, y1 < height)
        boxes = prediction.boxes_xyxy_px.numpy().astype(np.float64)
        scores, labels = prediction.scores.tolist(), prediction.labels.tolist()
        out = []
        for i, (score, label) in enumerate(zip(scores, labels, strict=True)):
            if score < self.thresholds[label]:
                continue
            left, top, right, bottom = (float(v) for v in boxes[i])
            mask = _bitmap(prediction, i)
            distances = (left, top, x1 - x0 - right, y1 - y0 - bottom)
            if mask is not None:
                mx, my, m = mask
                distances = (mx, my, x1 - x0 - mx - m.shape[1], y1 - y0 - my - m.shape[0])
                left, top, right, bottom = mx, my, mx + m.shape[1], my + m.shape[0]
            clearance = min((d for d, goes_on in zip(distances, open_edges, strict=True) if goes_on), default=np.inf)
            out.append(
                Found(
                    window=window.index,
                    label=label,
                    score=score,
                    box=(left + x0, top + y0, right + x0, bottom + y0),
                    mask=None if mask is None else (mask[0] + x0, mask[1] + y0, mask[2]),
                    canopy_share=_canopy_share(tree, mask, (left, top, right, bottom)),
                    cut=bool(clearance < CUT_PX),
                    clearance=float(clearance),
                )
            )
        return out

    def _planes(self, window: Window, prediction: Prediction, known: Bools) -> dict[str, Any]:
        core, out = _within(window), {}
        if prediction.semantic is not None:
            semantic = prediction.semantic.numpy()
            out["semantic"] = np.where(known, semantic, IGNORE).astype(np.uint8)[core]
            if self.shade_id is not None:
                out["shade"] = _share((semantic == self.shade_id).astype(np.float32), known, window, self.hw)
        if prediction.density is not None:
            fine = prediction.density.numpy().repeat(STRIDE_PX, axis=0).repeat(STRIDE_PX, axis=1)
            out["density"] = _share(fine[: known.shape[0], : known.shape[1]], known, window, self.hw)
        return out


def cells_of(window: Window, hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows and columns (from, to, from, to) of the 32 px cells whose centre lies in the core; the cells at the
    raster's end belong to the last core, whether their centre lies in the raster or not."""
    x0, y0, x1, y1 = window.core

    def first(v: int, length: int) -> int:
        return -(-length // STRIDE_PX) if v == length else -(-(v - STRIDE_PX // 2) // STRIDE_PX)

    return first(y0, hw[0]), first(y1, hw[0]), first(x0, hw[1]), first(x1, hw[1])


def _share(
    values: npt.NDArray[np.float32], known: Bools, window: Window, hw: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Mean of `values` over the known pixels of each cell; -1 where it has none. Of a cell at the window's edge, the
    pixels inside the window."""
    r0, r1, c0, c1 = cells_of(window, hw)
    sums = np.zeros((2, known.shape[0] + 1, known.shape[1] + 1))
    for k, plane in enumerate((values * known, known)):
        sums[k, 1:, 1:] = plane.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    rows = (np.arange(r0, r1 + 1) * STRIDE_PX - window.y.start).clip(0, known.shape[0])
    columns = (np.arange(c0, c1 + 1) * STRIDE_PX - window.x.start).clip(0, known.shape[1])
    at = sums[:, rows][:, :, columns]
    total, count = at[:, 1:, 1:] - at[:, :-1, 1:] - at[:, 1:, :-1] + at[:, :-1, :-1]
    return np.where(count > 0, total / np.maximum(count, 1), -1.0).astype(np.float32)


def _within(window: Window) -> Any:
    x0, y0, x1, y1 = window.core
    left, top = window.x.start, window.y.start
    return np.s_[y0 - top : y1 - top, x0 - left : x1 - left]


def _cells(valid: Bools) -> Bools | None:
    """Cells of 8 px of which at least half is known; None where all is known."""
    if valid.all():
        return None
    height, width = valid.shape
    padded = np.zeros((-(-height // OUTLINE_PX) * OUTLINE_PX, -(-width // OUTLINE_PX) * OUTLINE_PX), dtype=np.float32)
    area = padded.copy()
    padded[:height, :width], area[:height, :width] = valid, 1.0
    shape = (padded.shape[0] // OUTLINE_PX, OUTLINE_PX, padded.shape[1] // OUTLINE_PX, OUTLINE_PX)
    known, there = (v.reshape(shape).sum(axis=(1, 3)) for v in (padded, area))
    return np.asarray(2 * known >= there)


def _bitmap(prediction: Prediction, i: int) -> tuple[int, int, Bools] | None:
    """The mask of crown `i`, trimmed; None where its class has none, or it is empty."""
    if prediction.masks is None:
        return None
    x, y, pixels = prediction.masks.crop(i)
    m = pixels.numpy().astype(bool)
    rows, columns = np.flatnonzero(m.any(axis=1)), np.flatnonzero(m.any(axis=0))
    if rows.size == 0:
        return None
    r0, r1, c0, c1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return x + c0, y + r0, m[r0:r1, c0:c1]


def _canopy_share(tree: Bools | None, mask: tuple[int, int, Bools] | None, box: Box) -> float:
    if tree is None:
        return float("nan")
    if mask is None:
        x0, y0, x1, y1 = (round(v) for v in box)
        part = tree[max(0, y0) : max(y1, y0 + 1), max(0, x0) : max(x1, x0 + 1)]
        return float(part.mean()) if part.size else float("nan")
    x, y, m = mask
    inner = tree[y : y + m.shape[0], x : x + m.shape[1]]
    return float(inner[m].mean())
