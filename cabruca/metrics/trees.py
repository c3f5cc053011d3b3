"""Trees on a plane: crowns of a window or of a whole plot, as the agroforestry metrics take them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cabruca.crops import CroppedMasks
from cabruca.ground import Floats, Ground, Ints

Bools = npt.NDArray[np.bool_]

CUT_PX = 1.5
"""A crown that ends within this many pixels of its picture's edge may go on beyond it."""


class Stencil(NamedTuple):
    """A crown's mask: its corner in px of its picture, its size, how many pixels it has, and eight of them a byte."""

    x: int
    y: int
    width: int
    height: int
    pixels: int
    bits: npt.NDArray[np.uint8]

    def dense(self) -> Bools:
        """bool `[height, width]`."""
        flat = np.unpackbits(self.bits, count=self.width * self.height)
        return flat.reshape(self.height, self.width).astype(np.bool_)


@dataclass(frozen=True)
class Trees:
    """N trees, each counted once, in the unit of their plane (metres, or px of a picture).

    Attributes:
        xy: float64 `[N, 2]`, centres. boxes: float64 `[N, 4]`, xyxy. labels: int64 `[N]`; scores: `[N]`, 1 for truth.
        area: `[N]`, of the mask, else of the ellipse in the box (pi / 4 * w * h). diameter: `[N]`, of the crown.
        head_diameter: `[N]`, what the crown head says at the centre, NaN without it.
        cut: bool `[N]`, the crown ends at its picture's edge. picture: `[N]` of text, and frame: `[N, 4]`, its box.
        window: `[N]` of text. seam: bool `[N]`, beside the line to a window that may have counted the crown too.
        stencils: N of them, or None.
    """

    xy: Floats
    boxes: Floats
    labels: Ints
    scores: Floats
    area: Floats
    diameter: Floats
    head_diameter: Floats
    cut: Bools
    picture: npt.NDArray[np.str_]
    frame: Floats
    window: npt.NDArray[np.str_]
    seam: Bools
    stencils: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def masked(self) -> Bools:
        """bool `[N]`: has a mask."""
        return np.array([s is not None for s in self.stencils], dtype=np.bool_)

    def select(self, keep: npt.NDArray[Any]) -> Trees:
        """Those at bool or integer `keep`, in that order."""
        return Trees(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})

    @classmethod
    def join(cls, parts: Sequence[Trees]) -> Trees:
        """All of them, one part after the other."""
        parts = parts or [no_trees()]
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})


def no_trees() -> Trees:
    """N = 0."""
    nothing = np.zeros(0)
    return Trees(
        np.zeros((0, 2)), np.zeros((0, 4)), np.zeros(0, np.int64), nothing, nothing, nothing, nothing,
        np.zeros(0, np.bool_), np.zeros(0, np.str_), np.zeros((0, 4)), np.zeros(0, np.str_), np.zeros(0, np.bool_),
        np.zeros(0, np.object_),
    )  # fmt: skip


def trees_of_window(
    ground: Ground,
    *,
    boxes_xyxy_px: Floats,
    labels: Ints,
    scores: Floats,
    centre_xy_px: Floats,
    masks: CroppedMasks | None,
    diameter_px: Floats | None,
    head_diameter_px: Floats | None,
    window: str | None = None,
    seam: Bools | None = None,
) -> Trees:
    """Crowns in px of a window, placed on its plane.

    Args:
        ground: of the window. diameter_px: `[N]`; None: 2 * sqrt(area / pi), for a box (w + h) / 2.
        window, seam: see `Trees`; None: the picture counts each crown in one window alone.
    """
    n, side = len(labels), ground.pixel_side
    sides = boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]
    area = np.asarray(math.pi / 4 * sides.prod(axis=1))
    own = sides.mean(axis=1)
    stencils = np.full(n, None, dtype=np.object_)
    if masks is not None and n:
        inside, known = masks.areas_px().numpy(), masks.has_mask.numpy()
        area = np.where(known, inside, area)
        own = np.where(known, 2 * np.sqrt(inside / math.pi), own)
        for i in np.flatnonzero(known).tolist():
            stencils[i] = _stencil(masks, i, ground.offset_xy_px)
    far = np.array([*ground.picture_hw_px[::-1]], dtype=np.float64)
    in_picture = boxes_xyxy_px + np.array([*ground.offset_xy_px] * 2)
    cut = (in_picture[:, :2] <= CUT_PX).any(axis=1) | (in_picture[:, 2:] >= far - CUT_PX).any(axis=1)
    unknown = np.full(n, np.nan)
    return Trees(
        xy=ground.to_plane(centre_xy_px),
        boxes=ground.boxes_to_plane(boxes_xyxy_px),
        labels=np.asarray(labels, dtype=np.int64),
        scores=np.asarray(scores, dtype=np.float64),
        area=area.astype(np.float64) * ground.pixel_area,
        diameter=(own if diameter_px is None else diameter_px).astype(np.float64) * side,
        head_diameter=unknown if head_diameter_px is None else head_diameter_px * side,
        cut=np.asarray(cut, dtype=np.bool_),
        picture=np.full(n, ground.picture),  # with np.str_ as its type only one character would stay
        frame=np.tile(ground.frame(), (n, 1)),
        window=np.full(n, ground.picture if window is None else window),
        seam=np.zeros(n, dtype=np.bool_) if seam is None else seam,
        stencils=stencils,
    )


def _stencil(masks: CroppedMasks, i: int, offset_xy_px: tuple[int, int]) -> Stencil:
    x, y, crop = masks.crop(i)
    height, width = crop.shape
    inside = crop.numpy().reshape(-1) > 0
    left, top = offset_xy_px
    return Stencil(x + left, y + top, width, height, int(inside.sum()), np.packbits(inside))
