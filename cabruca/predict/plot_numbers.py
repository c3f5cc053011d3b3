"""Numbers of a plot, by the functions of `metrics`: name -> number, and 95 % intervals over its tiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cabruca.ground import HECTARE_M2, Floats, Inventory
from cabruca.metrics.agroforestry import AgroforestrySettings, stand_metrics
from cabruca.metrics.bootstrap import Interval, ratio_interval
from cabruca.metrics.canopy import SHADE, TREE, cover_share
from cabruca.metrics.inventory import inventory_metrics
from cabruca.metrics.matching import QUARTILES
from cabruca.metrics.shade import near_shade
from cabruca.predict.farm_map import MAP, FarmMap
from cabruca.predict.stands import Ground, labels_of

TITLES = {
    "area_ha": "known ground, ha",
    "cacao_trees": "cacao trees",
    "shade_trees": "shade trees",
    "cacao_per_ha": "cacao trees per ha",
    "shade_per_ha": "shade trees per ha",
    "stems_per_ha": "all crowns per ha",
    "shade_to_cacao_ratio": "shade trees per cacao tree",
    "cacao_in_shade_share": "share of cacao near a shade tree",
    "canopy_cover": "canopy cover",
    "shade_cover": "shade cover",
    "crown_diameter_mean_m": "mean crown diameter, m",
    "crown_diameter_q25_m": "lower quartile of diameters, m",
    "crown_diameter_median_m": "median diameter, m",
    "crown_diameter_q75_m": "upper quartile of diameters, m",
    "nearest_neighbour_mean_m": "mean distance to the nearest tree, m",
    "clark_evans": "Clark-Evans index",
    "clark_evans_z": "its z",
}
"""Numbers of each plot, in the order of the table."""

SHARES = ("cacao_in_shade_share", "canopy_cover", "shade_cover")


@dataclass(frozen=True)
class PlotNumbers:
    """Attributes: name: of the plot. values: as `TITLES`, NaN where undefined. intervals: of those that are ratios of
    sums over tiles. inventory: as `metrics.inventory`, empty without one."""

    name: str
    values: Mapping[str, float]
    intervals: Mapping[str, Interval]
    inventory: Mapping[str, float]


def numbers_of(
    farm: FarmMap, ground: Ground, *, shade_radius_m: float, inventory: Inventory | None = None
) -> PlotNumbers:
    """All numbers of a plot."""
    settings = AgroforestrySettings(farm.names, shade_radius_m)
    stand = stand_metrics([ground.plot], settings, "found")
    trees, area = ground.plot.found, ground.plot.area / HECTARE_M2
    cacao, shade = (np.isin(trees.labels, labels) for labels in labels_of(farm))
    quartiles = np.quantile(trees.diameter, [0.25, 0.5, 0.75]).tolist() if len(trees) else [math.nan] * 3
    values = {
        "area_ha": area,
        **{"cacao_trees": float(cacao.sum()), "shade_trees": float(shade.sum())},
        **{"cacao_per_ha": float(cacao.sum()) / area, "shade_per_ha": stand["shade_trees_per_ha"]},
        "stems_per_ha": stand["stem_density_per_ha"],
        **{"canopy_cover": cover_share([ground.squares], TREE), "shade_cover": cover_share([ground.squares], SHADE)},
        **{f"crown_diameter_{q}_m": v for q, v in zip(QUARTILES, quartiles, strict=True)},
    }
    values |= {name: stand[name] for name in TITLES if name in stand and name not in values}
    return PlotNumbers(
        ground.name,
        {name: values[name] for name in TITLES},
        _intervals(ground, cacao, shade, shade_radius_m),
        {} if inventory is None else inventory_metrics([ground.plot], {MAP: inventory}),
    )


def _intervals(ground: Ground, cacao: npt.NDArray[Any], shade: npt.NDArray[Any], radius: float) -> dict[str, Interval]:
    """Each number as sums over tiles. A tree belongs to the tile that it stands in; its shade may stand in another."""
    trees, tiles = ground.plot.found, len(ground.known)

    def summed(weights: npt.NDArray[Any]) -> Floats:
        sums = np.bincount(ground.tile, weights=weights.astype(np.float64), minlength=tiles)
        return np.asarray(sums[:tiles], dtype=np.float64)

    n_cacao, n_shade, every = summed(cacao), summed(shade), summed(np.ones(len(trees)))
    covered = np.zeros(len(trees))
    covered[np.flatnonzero(cacao)] = near_shade(trees.xy[cacao], trees.xy[shade], radius)
    hectares = ground.known / HECTARE_M2
    parts: dict[str, tuple[Floats, Floats]] = {
        "cacao_per_ha": (n_cacao, hectares),
        "shade_per_ha": (n_shade, hectares),
        "stems_per_ha": (every, hectares),
        "shade_to_cacao_ratio": (n_shade, n_cacao),
        "cacao_in_shade_share": (summed(covered), n_cacao),
        "canopy_cover": (ground.canopy, ground.known),
        "shade_cover": (ground.shade, ground.known),
        "crown_diameter_mean_m": (summed(trees.diameter), every),
    }
    return {name: ratio_interval(part, whole) for name, (part, whole) in parts.items()}


def columns(rows: Sequence[PlotNumbers]) -> list[dict[str, object]]:
    """A flat row a plot, for CSV and JSON: numbers, `<name>_low` and `_high`, and the inventory's."""
    out = []
    for row in rows:
        flat: dict[str, object] = {"plot": row.name}
        for name, value in row.values.items():
            flat[name] = value
            if name in row.intervals:
                flat[f"{name}_low"], flat[f"{name}_high"] = row.intervals[name]
        out.append(flat | dict(row.inventory))
    return out
