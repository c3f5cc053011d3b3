"""Blocks of `cabruca data prepare`: ground divided between the splits, on the plane of the first raster's CRS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS

from cabruca.data.prepare_ground import Ortho, unit_metres
from cabruca.data.splits import Block, draw_folds, draw_split, grid_of, read_regions, with_folds
from cabruca.data.vector import Layer, Shapes, moved, read_layer
from cabruca.errors import DataError

SPATIAL = "spatial"
FIELD = "split"

LEAST_BLOCK_M = 50.0
"""`--block auto` is two tiles, at least this: trees, light and soil of neighbours are alike over some 10 m."""

WANTED_BLOCKS = 20
"""`--block auto` is smaller where there would be fewer blocks."""


@dataclass(frozen=True)
class Shares:
    """How the ground is divided: shares of validation and test, folds (0: none), side of a block (None: auto), seed."""

    val: float
    test: float
    folds: int
    block_m: float | None
    seed: int

    def check(self) -> None:
        """Raises DataError: shares that leave nothing to train on, or one fold."""
        if not 0 < self.val < 1 or not 0 <= self.test < 1 or self.val + self.test >= 1:
            raise DataError(
                f"--val {self.val:g} and --test {self.test:g} leave {1 - self.val - self.test:g} to train on; "
                "use a share between 0 and 1 for val, and less than 1 for both"
            )
        if self.folds == 1 or self.folds < 0:
            raise DataError(f"--folds {self.folds} is no cross-validation; use 2 or more, or leave it out")


def regions_of(split: str) -> tuple[Layer, str] | None:
    """The file and field of `--split FILE[:FIELD]`; None for `spatial`.

    Raises:
        DataError: it cannot be read.
    """
    if split == SPATIAL:
        return None
    path, field = split, FIELD
    if not Path(split).is_file() and ":" in split and Path(split.rpartition(":")[0]).is_file():
        path, _, field = split.rpartition(":")
    layer = read_layer(path, preferred=None)
    if layer.crs is None:
        raise DataError(f"'{path}' states no crs; save the regions with their crs")
    return layer, field


def region_blocks(layer: Layer, field: str, ortho: Ortho) -> list[Block]:
    """The regions on the plane."""
    assert layer.crs is not None
    shapes = moved(layer.shapes, layer.crs, ortho.crs, what=f"'{layer.path}'", dense=True)
    pixel = (ortho.info.gsd_m or 1.0) ** 2 / math.prod(unit_metres(ortho))
    # neighbours that touch share a sliver once their edges were moved to another CRS
    tolerance = 4 * pixel * max(ortho.info.width, ortho.info.height) if layer.crs != ortho.crs else 4 * pixel
    return read_regions(layer, shapes, field, tolerance=tolerance)


def spatial_blocks(
    orthos: Sequence[Ortho],
    grounds: Sequence[shapely.Geometry],
    centres: Sequence[tuple[Shapes, Sequence[str]]],
    shares: Shares,
    tile_size: int,
) -> tuple[list[Block], float]:
    """Squares of ground with their splits and folds, and the side of one in metres.

    Args:
        grounds: labelled ground of each raster, px. centres: of each raster, points of the crowns (px) and their class.

    Raises:
        DataError: too few blocks hold crowns.
    """
    plane = orthos[0]
    on_plane = [o.to_crs(np.array([g], dtype=object), plane.crs)[0] for o, g in zip(orthos, grounds, strict=True)]
    labelled = shapely.union_all([shapely.make_valid(g) for g in on_plane])
    metres = unit_metres(plane)
    area_m2 = labelled.area * math.prod(metres)
    side_m = shares.block_m or _auto_side(area_m2, tile_size * max(o.info.gsd_m or 0.0 for o in orthos))
    squares = grid_of(labelled, (side_m / metres[0], side_m / metres[1]))
    weights = _weights(
        squares, labelled, [(o.to_crs(p, plane.crs, dense=False), c) for o, (p, c) in zip(orthos, centres, strict=True)]
    )
    with_crowns = int((weights[:, 1:].sum(axis=1) > 0).sum())
    needed = max(2 + (shares.test > 0), shares.folds + (shares.test > 0))
    if with_crowns < needed:
        smaller = math.floor(math.sqrt(area_m2 / (2 * needed)))
        raise DataError(
            f"blocks of {side_m:g} m put the crowns into {with_crowns} block(s), and {needed} are needed; "
            f"use a smaller one, such as --block {max(1, smaller)}m"
        )
    wanted = {"train": 1 - shares.val - shares.test, "val": shares.val, "test": shares.test}
    splits = draw_split(weights, wanted, shares.seed)
    blocks = [Block(s, split, f"block {k + 1}") for k, (s, split) in enumerate(zip(squares, splits, strict=True))]
    if shares.folds:
        kept = weights[[split != "test" for split in splits]]
        blocks = with_folds(blocks, draw_folds(kept, shares.folds, shares.seed))
    return blocks, side_m


def _auto_side(area_m2: float, tile_m: float) -> float:
    side = max(LEAST_BLOCK_M, 2 * tile_m)
    return float(max(1, round(min(side, math.sqrt(area_m2 / WANTED_BLOCKS)))))


def _weights(
    squares: Sequence[shapely.Geometry],
    labelled: shapely.Geometry,
    centres: Sequence[tuple[Shapes, Sequence[str]]],
) -> npt.NDArray[np.float64]:
    """`[N, 1 + classes]`: labelled area and crowns of each class in each square."""
    names = sorted({name for _, classes in centres for name in classes})
    out = np.zeros((len(squares), 1 + len(names)))
    out[:, 0] = shapely.area(shapely.intersection(np.array(squares, dtype=object), labelled))
    for points, classes in centres:
        home = block_of(squares, points)
        for k, name in enumerate(names, 1):
            own = home[[c == name for c in classes]]
            out[:, k] += np.bincount(own[own >= 0], minlength=len(squares))
    return out


def block_of(squares: Sequence[shapely.Geometry], points: Shapes) -> npt.NDArray[np.intp]:
    """The first of the shapes that each point lies in, -1 for none."""
    out = np.full(len(points), -1, dtype=np.intp)
    which, block = shapely.STRtree(list(squares)).query(points, predicate="intersects")
    order = np.argsort(-block, kind="stable")
    out[which[order]] = block[order]  # the first block is written last
    return out


def plane_crs(orthos: Sequence[Ortho]) -> CRS:
    """Blocks are drawn in the first raster's CRS."""
    return orthos[0].crs
