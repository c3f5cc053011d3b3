"""The numbers that describe a labelled set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

HEAVIEST = 10.0
"""A suggested class weight is never larger: a class seen in a few pixels would rule the loss."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spread:
    """Five numbers and a mean of a list that is not empty."""

    min: float
    q1: float
    median: float
    q3: float
    max: float
    mean: float

    @classmethod
    def of(cls, values: Sequence[float] | Array) -> Spread | None:
        """None of an empty list."""
        if len(values) == 0:
            return None
        low, q1, median, q3, high = (float(v) for v in np.percentile(values, [0, 25, 50, 75, 100]))
        return cls(low, q1, median, q3, high, float(np.mean(values)))


@dataclass(frozen=True)
class CrownClass:
    """One instance class.

    Attributes:
        crowns, with_mask: counted, groups ("crowd") left out. pictures: that show one at least.
        diameter_px, diameter_m: crown diameters as annotated, else of the circle of the mask's area, else (w + h) / 2
            of the box; metres over crowns on pictures of known ground sampling distance.
    """

    crowns: int
    with_mask: int
    pictures: int
    diameter_px: Spread | None
    diameter_m: Spread | None


@dataclass(frozen=True)
class SetStats:
    """One set.

    Attributes:
        pictures, megapixels: of the grid. gsd_m: of the pictures that it is known of; gsd_unknown: how many others.
        crowns_per_tile: crown centres in each cell of a grid of `tile_size_px`; cells at the right and lower edge are
            smaller. empty_tiles: share of those without any.
        crowds, ignored: annotations that are groups, and of ignored categories.
        land_cover: class -> share of the pixels whose class is known, None where no picture has such truth;
            unknown_cover: share of all pixels without a known class.
        class_weights: suggested `loss.semantic_class_weights`, in class order.
        values: class -> (diameters in px, diameters in m), and `""` -> (crowns a tile, crowns a picture), for plots.
    """

    name: str
    pictures: int
    megapixels: float
    gsd_m: Spread | None
    gsd_unknown: int
    tile_size_px: int
    classes: Mapping[str, CrownClass]
    crowns_per_picture: Spread | None
    crowns_per_tile: Spread | None
    empty_tiles: float
    crowds: int
    ignored: int
    land_cover: Mapping[str, float] | None
    unknown_cover: float | None
    class_weights: tuple[float, ...] | None
    values: Mapping[str, tuple[Array, Array]] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, without `values`."""
        out = {key: value for key, value in vars(self).items() if key != "values"}
        out["classes"] = {name: vars(c) | _spreads(vars(c)) for name, c in self.classes.items()}
        return out | _spreads(out)


def _spreads(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(vars(value)) for key, value in values.items() if isinstance(value, Spread)}


def suggest_weights(pixels: Array) -> tuple[float, ...]:
    """Median frequency balancing: the median frequency of the classes that are there, over the class's frequency: its
    pixels / the known pixels of the pictures that show it.

    Capped at `HEAVIEST`; a class that is not there gets 1, which means nothing. Source: Eigen and Fergus 2015,
    "Predicting depth, surface normals and semantic labels", section 6.3.

    Args:
        pixels: `[P, K]` known pixels of each class, a picture a row.
    """
    around = (pixels > 0).T @ pixels.sum(axis=1)
    shares = (pixels.sum(axis=0) / np.maximum(around, 1)).tolist()
    there = [share for share in shares if share > 0]
    middle = float(np.median(there)) if there else 1.0
    return tuple(round(min(HEAVIEST, middle / share), 3) if share > 0 else 1.0 for share in shares)
