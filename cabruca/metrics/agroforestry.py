"""Agroforestry metrics over the whole validation area: name -> number. docs/metrics.md lists them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from shapely.geometry.base import BaseGeometry

from cabruca.ground import HECTARE_M2, Floats, Inventory
from cabruca.metrics.canopy import canopy_metrics, shade_distribution_score
from cabruca.metrics.inventory import inventory_metrics
from cabruca.metrics.matching import overlap_metrics, species_metrics
from cabruca.metrics.pairing import Matched, match_plots
from cabruca.metrics.plots import Plot, make_plots, squares_of_planes
from cabruca.metrics.shade import shade_metrics
from cabruca.metrics.spacing import neighbour_metrics, ripley_metrics, voronoi_metrics
from cabruca.metrics.survey import Survey, is_cacao, is_shade
from cabruca.metrics.trees import Trees

NAN = math.nan
LENGTHS = ("nearest_neighbour_mean", "shade_distance_mean")
"""Names that are a length; they get `_m` or `_px` behind them."""

WITHOUT_CROWNS = ("canopy_cover", "canopy_cover_error", "shade_distribution_score", "plot_area_ha", "inventory_trees")
"""Names, besides the true ones, that need no instance head where there is a semantic one."""


@dataclass(frozen=True)
class AgroforestrySettings:
    """Attributes: names: instance classes, names[0] is label 1. shade_radius_m: see `shade_metrics`."""

    names: tuple[str, ...]
    shade_radius_m: float


def agroforestry_metrics(
    surveys: Sequence[Survey],
    settings: AgroforestrySettings,
    *,
    inventory: Mapping[str, Inventory] | None = None,
    heads: Collection[str] = ("instance", "semantic"),
    matched: Sequence[Matched] | None = None,
) -> dict[str, float]:
    """Every agroforestry metric, NaN where one is undefined; the names do not depend on the data.

    Plots are pooled as each formula says. Where the scale of some windows is known and of others not, spacing, cover
    and shade are measured on those where it is; where it is known of none, in px, and what needs metres is NaN.

    Args:
        surveys: of all windows, each once. inventory: plane -> trees; None: no `inventory_*` names.
        heads: of the network; without `instance` what needs found crowns is NaN.
        matched: `match_plots` of the surveys' plots, where somebody has them already.
    """
    matched = match_plots(make_plots(surveys)) if matched is None else matched
    plots = [plot for plot, _ in matched]
    scaled = [p for p in plots if p.in_metres] or plots
    known = [s for s in surveys if s.ground.in_metres] or list(surveys)
    if "instance" not in heads:  # nobody looked for the crowns of windows without land cover truth
        known = [s for s in known if s.canopy_seen]
    squares = squares_of_planes(known)
    out = crown_metrics(matched, settings.names)
    out |= {"plot_area_ha": _hectares(scaled)}
    for side, suffix in (("found", ""), ("true", "_true")):
        out |= {k + suffix: v for k, v in stand_metrics(scaled, settings, side).items()}
    out |= canopy_metrics(squares) | {"shade_distribution_score": shade_distribution_score(squares)}
    if inventory is not None:
        out |= inventory_metrics(plots, inventory)
    if "instance" in heads:
        return out
    kept = WITHOUT_CROWNS if "semantic" in heads else ("plot_area_ha", "inventory_trees")
    return {k: v if k in kept or k.endswith("_true") else NAN for k, v in out.items()}


def agroforestry_names(names: Sequence[str], *, inventory: bool) -> frozenset[str]:
    """All names that `agroforestry_metrics` gives."""
    settings = AgroforestrySettings(tuple(names), 1.0)
    return frozenset(agroforestry_metrics([], settings, inventory={} if inventory else None))


def crown_metrics(matched: Sequence[Matched], names: Sequence[str]) -> dict[str, float]:
    """Species, overlap and diameter over the crowns matched in each plot (`match_crowns`), all plots pooled.

    `crown_diameter_mae_<m|px>` is the mean of |found - true| over the pairs, `crown_diameter_bias_<m|px>` the mean of
    found - true; `crown_head_diameter_mae_<m|px>` takes what the crown head says at the found crown's centre instead
    of the diameter of its outline. NaN without pairs.
    """
    plots = [plot for plot, _ in matched]
    out = species_metrics(
        _pooled(plots, lambda p: p.found.labels).astype(np.int64),
        _pooled(plots, lambda p: p.true.labels).astype(np.int64),
        [(p.found.labels[m.found], p.true.labels[m.true]) for p, m in matched],
        names,
    )
    out |= overlap_metrics(np.concatenate([np.zeros(0), *(m.iou for _, m in matched)]))
    for unit, in_metres in (("m", True), ("px", False)):
        own = [(p, m) for p, m in matched if p.in_metres == in_metres]
        out |= {f"{k}_{unit}": v for k, v in _diameters(own).items()}
    return out


def _diameters(matched: Sequence[Matched]) -> dict[str, float]:
    off = [p.found.diameter[m.found] - p.true.diameter[m.true] for p, m in matched]
    head = [p.found.head_diameter[m.found] - p.true.diameter[m.true] for p, m in matched]
    gaps, of_head = (np.concatenate([np.zeros(0), *v]) for v in (off, head))
    of_head = of_head[~np.isnan(of_head)]
    return {
        "crown_diameter_mae": _mean(np.abs(gaps)),
        "crown_diameter_bias": _mean(gaps),
        "crown_head_diameter_mae": _mean(np.abs(of_head)),
    }


def stand_metrics(plots: Sequence[Plot], settings: AgroforestrySettings, side: str) -> dict[str, float]:
    """Of one side's trees alone: spacing, Ripley's L, room, density, shade, mean crown diameter.

    `stem_density_per_ha` = trees / area, `shade_trees_per_ha` the shade trees of it; NaN where the scale is unknown.

    Args:
        plots: all in metres, or all in px. side: `found` or `true`.
    """
    in_metres = bool(plots) and plots[0].in_metres
    trees: list[Trees] = [getattr(p, side) for p in plots]
    stands: list[tuple[Floats, BaseGeometry]] = [(t.xy, p.domain) for t, p in zip(trees, plots, strict=True)]
    shade, cacao = (_of(trees, settings.names, role) for role in (is_shade, is_cacao))
    areas = [p.area for p in plots]
    out = neighbour_metrics(stands, areas) | ripley_metrics(stands, areas) | voronoi_metrics(stands)
    out |= shade_metrics(cacao, shade, settings.shade_radius_m if in_metres else NAN)
    for name in LENGTHS:
        value = out.pop(name)
        out |= {f"{name}_m": value if in_metres else NAN, f"{name}_px": NAN if in_metres else value}
    area = _hectares(plots)
    out["crown_diameter_mean_m"] = (
        _mean(np.concatenate([np.zeros(0), *(t.diameter for t in trees)])) if in_metres else NAN
    )
    for name, count in (("stem_density", sum(map(len, trees))), ("shade_trees", sum(map(len, shade)))):
        out[f"{name}_per_ha"] = count / area if area > 0 else NAN
    return out


def _of(trees: Sequence[Trees], names: Sequence[str], role: Callable[[str], bool]) -> list[Floats]:
    labels = [k for k, name in enumerate(names, 1) if role(name)]
    return [t.xy[np.isin(t.labels, labels)] for t in trees]


def _hectares(plots: Sequence[Plot]) -> float:
    """Known ground of plots in metres; NaN where the scale is unknown."""
    return sum(p.area for p in plots) / HECTARE_M2 if plots and plots[0].in_metres else NAN


def _pooled(plots: Sequence[Plot], of: Callable[[Plot], object]) -> Floats:
    return np.concatenate([np.zeros(0), *(np.asarray(of(p), dtype=np.float64) for p in plots)])


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else NAN
