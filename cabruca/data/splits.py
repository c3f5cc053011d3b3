"""Which ground is for training, validation and test: blocks of a grid drawn by a seed, or regions that are given.

Random windows of one flight flatter every model: neighbours show the same trees, light and soil. So ground is divided,
not windows. The grid lies on map coordinates (multiples of its side), so that rasters of the same ground agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import shapely

from cabruca.data.vector import Layer, Shapes
from cabruca.errors import DataError, did_you_mean

SPLITS = ("train", "val", "test")
TRIES = 400
"""Draws of a split, of which the one nearest to the shares asked for is taken."""

MOST_BLOCKS = 100_000
"""Blocks of a metre over ten hectares; more are a mistake in the unit."""

LEAST_SHARE = 1e-3
"""A block of which less is labelled is none: an area that was drawn by hand reaches over the grid's lines."""

OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


@dataclass(frozen=True)
class Block:
    """A piece of ground on the plane (the first raster's CRS): its shape, its split, its name, its fold (-1: none)."""

    shape: shapely.Geometry
    split: str
    name: str
    fold: int = -1


def grid_of(labelled: shapely.Geometry, side_xy: tuple[float, float]) -> list[shapely.Geometry]:
    """Squares of the grid that share ground with the labelled area, row by row from the south-west; slivers do not.

    Args:
        side_xy: of one square, in units of the plane.

    Raises:
        DataError: too many squares.
    """
    x0, y0, x1, y1 = labelled.bounds
    (dx, dy), eps = side_xy, 1e-9
    columns = range(math.floor(x0 / dx + eps), math.ceil(x1 / dx - eps))
    rows = range(math.floor(y0 / dy + eps), math.ceil(y1 / dy - eps))
    if len(columns) * len(rows) > MOST_BLOCKS:
        raise DataError(
            f"--block makes {len(columns)} x {len(rows)} blocks of the labelled ground, and {MOST_BLOCKS} is the most; "
            "use larger ones"
        )
    squares = np.array([shapely.box(i * dx, j * dy, (i + 1) * dx, (j + 1) * dy) for j in rows for i in columns])
    shapely.prepare(labelled)
    touched = squares[shapely.intersects(labelled, squares)]
    shared = shapely.area(shapely.intersection(touched, labelled))
    return list(touched[shared > LEAST_SHARE * min(dx * dy, labelled.area)])


def draw_split(weights: npt.NDArray[np.float64], shares: Mapping[str, float], seed: int) -> list[str]:
    """A split for each of N blocks, near the shares in every column of `weights`; a function of its arguments.

    Args:
        weights: `[N, M]`, what each block holds: area, crowns of each class.
        shares: split -> share of the whole, above 0, 1 together. Every split gets one block or more with crowns.
    """
    rng = np.random.default_rng(seed)
    names = [name for name in SPLITS if shares.get(name, 0) > 0]
    total = weights.sum(axis=0)
    used = weights[:, total > 0] / total[total > 0]
    target = np.array([shares[name] for name in names])
    best, best_cost = np.zeros(len(weights), dtype=np.intp), math.inf
    for _ in range(TRIES):
        order = rng.permutation(len(weights))
        own = _fill(used[order], target)
        chosen = np.empty(len(weights), dtype=np.intp)
        chosen[order] = own
        sums = np.stack([used[chosen == k].sum(axis=0) for k in range(len(names))])
        empty = (sums[:, 1:].max(axis=1) == 0).sum() if used.shape[1] > 1 else 0
        cost = float((((sums - target[:, None]) / target[:, None]) ** 2).mean()) + 1e3 * empty
        if cost < best_cost:
            best, best_cost = chosen, cost
    return [names[k] for k in best]


def _fill(weights: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """The splits are filled one after the other in the order of the blocks; training takes what is left."""
    each = weights.mean(axis=1)
    out = np.zeros(len(each), dtype=np.intp)
    at = 0
    for k in range(1, len(target)):
        got = 0.0
        while at < len(each) and (got == 0 or got + each[at] / 2 <= target[k]):
            got += each[at]
            out[at] = k
            at += 1
    return out


def draw_folds(weights: npt.NDArray[np.float64], folds: int, seed: int) -> list[int]:
    """A fold, 0 to K - 1, for each of N blocks: heavy ones first, each into the fold that has least yet."""
    total = weights.sum(axis=0)
    used = weights[:, total > 0] / total[total > 0]
    order = np.random.default_rng(seed).permutation(len(weights))
    order = order[np.argsort(-used[order].mean(axis=1), kind="stable")]
    sums = np.zeros((folds, used.shape[1]))
    out = [0] * len(weights)
    for i in order.tolist():
        fold = int(np.argmin(((sums + used[i]) ** 2).sum(axis=1) - (sums**2).sum(axis=1)))
        sums[fold] += used[i]
        out[i] = fold
    return out


def read_regions(layer: Layer, shapes: Shapes, field: str, *, tolerance: float) -> list[Block]:
    """The regions of a file as blocks, those of one split that touch as they are.

    Args:
        shapes: the layer's shapes on the plane. field: whose values are train, val or test.
        tolerance: area that two splits may share, in squares of the plane's unit.

    Raises:
        DataError: no such field, another value, no region of train or val, or splits that overlap.
    """
    values = layer.values(field, f"give --split {layer.path}:FIELD")
    blocks = []
    for k, (value, shape) in enumerate(zip(values, shapes, strict=True)):
        name = str(value).strip().lower()
        name = OTHER_NAMES.get(name, name)
        if name not in SPLITS:
            hint = did_you_mean(name, SPLITS) or ";"
            raise DataError(
                f"'{layer.path}': region {k + 1} has {field} {value!r}{hint} write train, val or test, or name "
                f"another field: --split {layer.path}:FIELD (fields: {', '.join(layer.fields)})"
            )
        if shape is None or shape.area == 0:
            raise DataError(f"'{layer.path}': region {k + 1} has no area; draw it as a polygon")
        blocks.append(Block(shapely.make_valid(shape), name, f"region {k + 1}"))
    missing = [name for name in ("train", "val") if all(b.split != name for b in blocks)]
    if missing:
        raise DataError(f"'{layer.path}' has no region with {field} '{missing[0]}'; add one")
    _refuse_overlap(layer, blocks, tolerance)
    return blocks


def _refuse_overlap(layer: Layer, blocks: Sequence[Block], tolerance: float) -> None:
    tree = shapely.STRtree([b.shape for b in blocks])
    for i, j in tree.query([b.shape for b in blocks], predicate="intersects").T.tolist():
        if i < j and blocks[i].split != blocks[j].split:
            shared = blocks[i].shape.intersection(blocks[j].shape).area
            if shared > tolerance:
                raise DataError(
                    f"'{layer.path}': {blocks[i].name} ({blocks[i].split}) and {blocks[j].name} ({blocks[j].split}) "
                    f"share ground; draw them apart"
                )


def with_folds(blocks: Sequence[Block], folds: Sequence[int]) -> list[Block]:
    """The blocks with the fold of each that is not held out for the test; `folds` in their order."""
    own = iter(folds)
    return [b if b.split == "test" else replace(b, fold=next(own)) for b in blocks]
