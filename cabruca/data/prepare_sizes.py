"""Tile size and overlap of `cabruca data prepare`: as asked for, else the configuration's, with room for the crowns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import shapely

from cabruca.config.schema import Config
from cabruca.data.prepare_pictures import PicturePart, Placed
from cabruca.errors import DataError

STEP = 32
"""The overlap is raised to a multiple of it, px."""

ROUNDING_PX = 0.02
"""Boxes are written in hundredths of a px."""

Pictures = Sequence[tuple[PicturePart, Placed]]


@dataclass(frozen=True)
class Sizes:
    """Side of a training window and overlap of validation windows, px; `asked`: whether the overlap is a flag's."""

    tile_size: int
    overlap: int
    asked: bool


def sizes_of(tile_size: int | None, overlap: int | None, config: Config, path: str | None) -> tuple[Sizes, list[str]]:
    """Flags before the configuration's values, and what to say of those that were not asked for.

    Args:
        path: the configuration's; None: the defaults.

    Raises:
        DataError: the overlap is not smaller than the tile size.
    """
    data = config.data
    found = Sizes(
        data.tile_size if tile_size is None else tile_size,
        data.overlap if overlap is None else overlap,
        overlap is not None,
    )
    if found.overlap >= found.tile_size:
        raise DataError(
            f"--overlap {found.overlap} is not smaller than --tile-size {found.tile_size}; use {found.tile_size // 8}"
        )
    kept = [
        f"--{name} {value}"
        for name, value, flag in (("tile-size", found.tile_size, tile_size), ("overlap", found.overlap, overlap))
        if flag is None
    ]
    return found, [f"{' and '.join(kept)} px: from {path or 'the defaults'}"] if kept else []


def with_room(sizes: Sizes, parts: Mapping[str, Pictures], config: Config) -> tuple[Sizes, list[str]]:
    """An overlap that every crown of the validated pictures fits into, where they are cut by a grid, and what to say.

    An overlap that was asked for stays, and one that would not fit into a tile; `data check` warns then.
    """
    validated = [pair for name, own in parts.items() if not name.endswith("train") for pair in own]
    largest = max((_largest(pair, config) for pair in validated), default=0.0)
    needed = math.ceil((largest + ROUNDING_PX) / STEP) * STEP
    if sizes.asked or largest <= sizes.overlap:
        return sizes, []
    if needed >= min(sizes.tile_size, config.validation.max_side_px):
        return sizes, [
            f"the largest crown to validate on has {largest:.0f} px, and data.overlap must be smaller than "
            f"data.tile_size, {sizes.tile_size}: counts of found crowns suffer; use --tile-size {2 * needed}"
        ]
    return replace(sizes, overlap=needed), [
        f"data.overlap is now {needed} px, not {sizes.overlap}: the largest crown to validate on has {largest:.0f}"
    ]


def _largest(pair: tuple[PicturePart, Placed], config: Config) -> float:
    """Longer side of the largest crown, grid px; 0 where the picture is validated as a whole."""
    part, placed = pair
    native, target = part.ortho.info.gsd_m, config.data.target_gsd_m
    zoom = native / target if native is not None and target is not None else 1.0
    if max(part.window[2:]) * zoom <= config.validation.max_side_px:
        return 0.0
    names = config.model.instance_names
    boxes = shapely.bounds(placed.shapes[[k for k in part.crowns if placed.classes[k] in names]]).reshape(-1, 4)
    return float((boxes[:, 2:] - boxes[:, :2]).max(initial=0.0)) * zoom
