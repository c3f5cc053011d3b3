"""Where windows lie: at random places for training, in a grid whose cores cover every pixel once for validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from cabruca.draws import draw_key, uniform
from cabruca.errors import DataError

_PLACE = 0x706C6163
"""Sets the draws for places apart from those for augmentation made from the same key."""

TRIES = 8
"""Places drawn for a window before one that shows mostly NoData is accepted."""

ENOUGH_VALID = 0.25
"""Share of known pixels from which on a place is taken at once."""


@dataclass(frozen=True)
class GridWindow:
    """x, y, width, height of a window on the picture, and the core it is counted for (x0, y0, x1, y1 there)."""

    window: tuple[int, int, int, int]
    core_xyxy: tuple[int, int, int, int]


def windows_per_picture(labelled_px: Sequence[float], tile_size: int) -> list[int]:
    """`ceil(labelled pixels / tile_size^2)` of each picture, at least 1."""
    return [max(1, math.ceil(px / tile_size**2)) for px in labelled_px]


def picture_of(index: int, total: int, shares: Sequence[int], u: float) -> int:
    """The picture that sample `index` of `total` is taken from.

    The samples divide the pictures' shares evenly, so that each picture gets its share of an epoch to within one
    sample; with `total = sum(shares)` exactly its share. `u` in [0, 1) moves the sample within its own part.
    """
    ends = np.cumsum(shares)
    place = (index + min(u, 1 - 1e-9)) / total * float(ends[-1])
    return min(int(np.searchsorted(ends, place, side="right")), len(ends) - 1)


def place_window(
    key: int, picture_hw: tuple[int, int], side: int, valid_map: npt.NDArray[np.float32] | None = None
) -> tuple[int, int]:
    """x, y of a window of `side` px, any whole place in the picture equally likely; 0 along an axis it does not fit.

    Args:
        valid_map: coarse map of known pixels over the picture; places that show less than `ENOUGH_VALID` of them are
            drawn again, up to `TRIES` times, and then the best of them is taken.
    """
    h, w = picture_hw
    free_x, free_y = max(0, w - side), max(0, h - side)
    u = uniform(draw_key(key, _PLACE), 2 * TRIES).double().numpy().reshape(TRIES, 2)
    xs = np.minimum((u[:, 0] * (free_x + 1)).astype(int), free_x)
    ys = np.minimum((u[:, 1] * (free_y + 1)).astype(int), free_y)
    if valid_map is None or valid_map.min() == 1.0:
        return int(xs[0]), int(ys[0])
    best, best_share = 0, -1.0
    for i in range(TRIES):
        share = _valid_share(valid_map, picture_hw, int(xs[i]), int(ys[i]), side)
        if share > best_share:
            best, best_share = i, share
        if share >= ENOUGH_VALID:
            break
    return int(xs[best]), int(ys[best])


def _valid_share(valid_map: npt.NDArray[np.float32], hw: tuple[int, int], x: int, y: int, side: int) -> float:
    rows, columns = valid_map.shape
    y0, y1 = y * rows // hw[0], max(y * rows // hw[0] + 1, min(rows, math.ceil((y + side) * rows / hw[0])))
    x0, x1 = x * columns // hw[1], max(x * columns // hw[1] + 1, min(columns, math.ceil((x + side) * columns / hw[1])))
    return float(valid_map[y0:y1, x0:x1].mean())


def evaluation_grid(picture_hw: tuple[int, int], max_side_px: int, overlap: int) -> list[GridWindow]:
    """The whole picture where it fits in `max_side_px`, else windows of that side, row by row.

    Neighbours share at least `overlap` px; the line between two cores runs through the middle of what they share.

    Raises:
        DataError: the overlap is not smaller than the window.
    """
    if overlap >= max_side_px:
        raise DataError(f"overlap {overlap} is not smaller than the window of {max_side_px} px; lower data.overlap")
    rows, columns = (_axis(length, max_side_px, overlap) for length in picture_hw)
    return [
        GridWindow((x, y, x1 - x, y1 - y), (cx0, cy0, cx1, cy1))
        for y, y1, cy0, cy1 in rows
        for x, x1, cx0, cx1 in columns
    ]


def _axis(length: int, side: int, overlap: int) -> list[tuple[int, int, int, int]]:
    """Window start and end, core start and end, along one axis."""
    if length <= side:
        return [(0, length, 0, length)]
    count = math.ceil((length - overlap) / (side - overlap))
    starts = [i * (length - side) // (count - 1) for i in range(count)]
    lines = [0, *((a + side + b) // 2 for a, b in pairwise(starts)), length]
    return [(s, s + side, c0, c1) for s, c0, c1 in zip(starts, lines, lines[1:], strict=False)]
