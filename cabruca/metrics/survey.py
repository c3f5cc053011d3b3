"""What the agroforestry metrics keep of one window: its trees, its ground, and what covers each square of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cabruca.ground import Floats, Ground
from cabruca.metrics.canopy import Cover, Squares, paint, square_side, squares_of
from cabruca.metrics.trees import Trees, trees_of_window
from cabruca.structures import CROWN_STRIDE, IGNORE, Batch, Crowns, Prediction, Regions

Bools = npt.NDArray[np.bool_]
OUTLINE_CELLS = 128
"""Cells along a core's longer side that its outline is drawn with where parts of it are unknown."""


Least = float | tuple[float, ...]
"""Score that found crowns take part from: one for all, or one by label (label 0 first)."""


def sure(scores: npt.NDArray[Any], labels: npt.NDArray[Any], least: Least) -> Bools:
    """bool `[N]`: crowns with these scores and labels take part."""
    return np.asarray(scores >= (np.array(least)[labels] if isinstance(least, tuple) else least))


@dataclass(frozen=True)
class SurveySettings:
    """How windows are surveyed.

    Attributes:
        score_threshold: found crowns take part from here on. shade_grid_m: side of the squares.
        tree_ids, shade_ids: semantic classes that are canopy, and shade canopy. shade_labels: instance classes of it.
    """

    score_threshold: Least
    shade_grid_m: float
    tree_ids: tuple[int, ...]
    shade_ids: tuple[int, ...]
    shade_labels: tuple[int, ...]

    @classmethod
    def of(
        cls, instance: Sequence[str], semantic: Sequence[str], *, score_threshold: Least, shade_grid_m: float
    ) -> SurveySettings:
        """By the names of the classes: those of the crowns are canopy, those that begin with `shade` give shade."""
        ids = {name: i for i, name in enumerate(semantic) if name in instance}
        return cls(
            score_threshold,
            shade_grid_m,
            tuple(ids.values()),
            tuple(i for name, i in ids.items() if is_shade(name)),
            tuple(i for i, name in enumerate(instance, 1) if is_shade(name)),
        )


def is_shade(name: str) -> bool:
    """Whether a class of this name is a shade tree ("shade_tree"; not "shadows")."""
    return name.split("_", 1)[0] == "shade"


def is_cacao(name: str) -> bool:
    """Whether a class of this name is cacao ("cacao_tree")."""
    return name.split("_", 1)[0] == "cacao"


@dataclass(frozen=True)
class Survey:
    """One window's core.

    Attributes:
        ground: of the core. found, true: its counted trees. squares: what covers it.
        outline: float64 `[K, 4, 2]`, corners of K rectangles on the plane that make up its known ground.
        grain: side of such a rectangle where parts are unknown, else 0.
        known_area: of its known pixels, in squares of the plane's unit.
        canopy_seen: its canopy was read off land cover, and not off crowns.
    """

    ground: Ground
    found: Trees
    true: Trees
    squares: Squares
    outline: Floats
    grain: float
    known_area: float
    canopy_seen: bool


def take_survey(
    batch: Batch,
    b: int,
    found: Prediction,
    settings: SurveySettings,
    *,
    centres: Floats,
    counted: tuple[Bools, Bools, Bools],
) -> Survey:
    """Survey sample `b` of a batch.

    Args:
        centres: `[N, 2]`, where the centres of the found crowns are taken to be, px of the window.
        counted: of the true and of the found crowns, which ones this core brings; of the found ones, which stand at
            its edge.

    Ground that is ignored for every class is no ground. A region of one class leaves the ground of the others: it
    stays in the area, and only its canopy is unknown.
    """
    x0, y0, x1, y1 = batch.cores_xyxy_px[b]
    shape = batch.sizes_hw_px[b]
    window = batch.grounds[b] or Ground.alone(batch.pictures[b], batch.sizes_hw_px[b], batch.gsd_m[b])
    true = batch.crowns[b].to("cpu")
    taken = sure(_floats(found.scores), found.labels.numpy(), settings.score_threshold)
    valid = batch.known[b, : shape[0], : shape[1]].cpu().numpy()
    regions, labels = true.ignored, true.ignored.labels.numpy()
    of_all, of_any = (_region(shape, regions, np.flatnonzero(k)) for k in (labels == 0, labels >= 0))
    known = (valid & ~of_all)[y0:y1, x0:x1]
    seen, cover = _cover(batch, b, found, true, known=(valid & ~of_any)[y0:y1, x0:x1], settings=settings)
    core = window.at(x0, y0)
    outline, grain = _outline(known, core)
    mine = np.flatnonzero(taken & counted[1])
    return Survey(
        ground=core,
        found=_found_trees(found, mine, centres, window, name=batch.pictures[b], seam=counted[2][mine]),
        true=_true_trees(true, np.flatnonzero(counted[0]), window),
        squares=squares_of(cover, core, square_side(core, settings.shade_grid_m)),
        outline=outline,
        grain=grain,
        known_area=int(known.sum()) * core.pixel_area,
        canopy_seen=seen,
    )


def _region(shape_hw: tuple[int, int], regions: Regions, keep: npt.NDArray[np.intp]) -> Bools:
    masks = regions.masks.select(torch.from_numpy(keep))
    return paint(shape_hw, _floats(regions.boxes_xyxy_px)[keep], masks, ellipses=False)


def _true_trees(true: Crowns, keep: npt.NDArray[np.intp], window: Ground) -> Trees:
    return trees_of_window(
        window,
        boxes_xyxy_px=_floats(true.boxes_xyxy_px)[keep],
        labels=true.labels.numpy()[keep],
        scores=np.ones(len(keep)),
        centre_xy_px=_floats(true.centre_xy_px)[keep],
        masks=true.masks.select(torch.from_numpy(keep)),
        diameter_px=_floats(true.diameter_px)[keep],
        head_diameter_px=None,
    )


def _found_trees(
    found: Prediction, keep: npt.NDArray[np.intp], centres: Floats, window: Ground, *, name: str, seam: Bools
) -> Trees:
    own = centres[keep]
    return trees_of_window(
        window,
        boxes_xyxy_px=_floats(found.boxes_xyxy_px)[keep],
        labels=found.labels.numpy()[keep],
        scores=_floats(found.scores)[keep],
        centre_xy_px=own,
        masks=None if found.masks is None else found.masks.select(torch.from_numpy(keep)),
        diameter_px=None,
        head_diameter_px=_read_head(found, own),
        window=name,
        seam=seam,
    )


def _read_head(found: Prediction, centres: Floats) -> Floats | None:
    """Crown diameters `[N]`, px, that the crown head gives at these centres."""
    if found.crown_diameter_px is None:
        return None
    values = _floats(found.crown_diameter_px)
    column, row = np.floor(centres / CROWN_STRIDE).astype(np.intp).T
    return np.asarray(values[row.clip(0, values.shape[0] - 1), column.clip(0, values.shape[1] - 1)])


def _cover(
    batch: Batch, b: int, found: Prediction, true: Crowns, *, known: Bools, settings: SurveySettings
) -> tuple[bool, Cover]:
    """Canopy of the core: of the semantic head where it is on and has truth here, else the union of the crowns, on
    both sides alike; first, whether it is the semantic head's.

    Args:
        known: `[H, W]`, ground of the core that is neither NoData nor ignored.
    """
    x0, y0, x1, y1 = batch.cores_xyxy_px[b]
    core = np.s_[y0:y1, x0:x1]
    shape = batch.sizes_hw_px[b]
    truth = batch.semantic[b].cpu().numpy()[core]
    if found.semantic is not None and (truth != IGNORE).any():
        ids = found.semantic.numpy()[core]
        known = known & (truth != IGNORE)
        layers = [np.isin(v, k) for k in (settings.tree_ids, settings.shade_ids) for v in (ids, truth)]
        return True, Cover(known, *layers)
    taken = sure(_floats(found.scores), found.labels.numpy(), settings.score_threshold)
    layers = []
    for labels in (None, settings.shade_labels):
        for crowns, wanted in ((found, taken), (true, np.ones(len(true), np.bool_))):
            keep = wanted if labels is None else wanted & np.isin(crowns.labels.numpy(), labels)
            layers.append(_union(shape, crowns, np.flatnonzero(keep))[core])
    return False, Cover(known, *layers)


def _union(shape_hw: tuple[int, int], crowns: Crowns | Prediction, keep: npt.NDArray[np.intp]) -> Bools:
    masks = None if crowns.masks is None else crowns.masks.select(torch.from_numpy(keep))
    return paint(shape_hw, _floats(crowns.boxes_xyxy_px)[keep], masks)


def _outline(known: Bools, core: Ground) -> tuple[Floats, float]:
    """Rectangles `[K, 4, 2]` on the plane that cover the known ground, and the side of a cell (0: all is known).

    Cells are known where half of their pixels are; neighbours along a row are one rectangle. Where that would leave
    out half of the known ground, as of scattered pixels, a cell with any of it is known.
    """
    height, width = known.shape
    if known.all():
        return _corners(np.array([[0.0, 0.0, width, height]]), core), 0.0
    cell = max(1, -(-max(height, width) // OUTLINE_CELLS))
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.zeros((rows * cell, columns * cell))
    padded[:height, :width] = known
    share = padded.reshape(rows, cell, columns, cell).sum(axis=(1, 3))
    tall, wide = (np.minimum(cell, n - np.arange(k) * cell) for n, k in ((height, rows), (width, columns)))
    size = tall[:, None] * wide[None]
    full = share * 2 >= size
    if 2 * share[full].sum() < known.sum():
        full = share > 0
    edges = np.diff(np.pad(full.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    (row, first), (_, last) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    boxes = np.stack([first * cell, row * cell, last * cell, (row + 1) * cell], axis=1).astype(np.float64)
    boxes = np.minimum(boxes, [width, height, width, height])
    return _corners(boxes, core), cell * core.pixel_side


def _corners(boxes: Floats, ground: Ground) -> Floats:
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 2)
    return ground.to_plane(corners).reshape(-1, 4, 2)


def _floats(values: Tensor) -> Floats:
    return values.detach().cpu().numpy().astype(np.float64)
