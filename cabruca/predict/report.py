"""`cabruca report`: a map of crowns as numbers a plot and a hectare, on one page that needs no network.

What is counted and how is in `metrics`; here it is put together and written down. Nothing of the network is imported.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cabruca.config.schema import ValidationConfig
from cabruca.data.inventory import load_inventory
from cabruca.errors import DataError
from cabruca.facts import guesses
from cabruca.ground import Inventory
from cabruca.metrics.inventory import inventory_metrics
from cabruca.page import bullets, document, picture, section, table
from cabruca.predict import report_pictures as pictures
from cabruca.predict.backdrop import Backdrop, backdrop
from cabruca.predict.farm_map import MAP, FarmMap, read_farm
from cabruca.predict.plot_numbers import SHARES, TITLES, PlotNumbers, columns, numbers_of
from cabruca.predict.stands import Ground, cut, whole
from cabruca.structures import InputSpec
from cabruca.tracking.files import to_json, write_atomic

INVENTORY = {
    "inventory_trees": "inventory trees",
    "inventory_detection_rate": "detection rate",
    "inventory_position_error_m": "mean position error, m",
    "inventory_position_error_median_m": "median position error, m",
    "inventory_species_agreement": "species agreement",
    "inventory_diameter_mae_m": "mean error of the diameter, m",
}

NOTES = (
    "A tree belongs to the plot that its crown's centre lies in; ground is what the image shows, without NoData.",
    "Intervals are 95 %, from a bootstrap over the windows of the plot (2,000 draws); a dash: fewer than five windows. "
    "They tell how the numbers vary over the ground, not what the network misses: see cabruca evaluate for that.",
    "Clark-Evans: 1 is random, below 0.8 clustered, above 1.2 even; z tells how far from random (|z| above 2: surely), "
    "with Donnelly's edge correction. Spacing is of all crowns of the plot.",
    "Cover is of the semantic head where the map has it, else of the union of the crowns.",
)


@dataclass(frozen=True)
class Written:
    """What was written, and the numbers: of all ground, and a row a plot; what to know before one uses them."""

    files: tuple[Path, ...]
    whole: PlotNumbers
    plots: tuple[PlotNumbers, ...]
    warnings: tuple[str, ...] = ()


def report(
    map_path: str | Path,
    plots: str,
    out: str | Path,
    *,
    inventory: str | Path | None = None,
    image: str | Path | None = None,
    json_path: str | Path | None = None,
    shade_radius_m: float | None = None,
) -> Written:
    """Write the page, a CSV with a row a plot beside it, and JSON where asked for.

    Args:
        plots: a file of polygons, or `grid:1ha`, `grid:50m`. inventory: trees counted on the ground, CSV or JSON.
        image: to lie behind the map of crowns. shade_radius_m: see `metrics.shade`; None: the configuration's default.

    Raises:
        DataError: one of the files cannot be used, or the plots, the inventory or the image lie elsewhere.
    """
    page_path = Path(out)
    if page_path.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"--out {out} is no page; give it a name that ends in .html")
    farm = read_farm(map_path)
    radius = ValidationConfig().shade_radius_m if shade_radius_m is None else shade_radius_m
    grounds, everything = cut(farm, plots), whole(farm)
    counted = None if inventory is None else _inventory(farm, everything, inventory)
    behind = None if image is None else backdrop(image, farm.plane)
    total = numbers_of(farm, everything, shade_radius_m=radius, inventory=counted)
    rows = tuple(numbers_of(farm, g, shade_radius_m=radius, inventory=counted) for g in grounds)
    facts = {"map": str(map_path), **farm.facts, "plots": f"{plots}: {len(rows)}", "shade radius": f"{radius:g} m"}
    facts["canopy and shade cover"] = farm.cover_source
    if inventory is not None:
        facts["inventory"] = str(inventory)
    facts["written"] = time.strftime("%Y-%m-%d %H:%M")
    counts = np.bincount(farm.trees.labels, minlength=len(farm.names) + 1).tolist()
    warnings = guesses(farm.guessed, dict(zip(farm.names, counts[1:], strict=False)))
    page = _page(farm, total, rows, grounds=grounds, behind=behind, facts=facts, warnings=warnings)
    contents = {page_path: page}
    contents[page_path.with_suffix(".csv")] = _csv(columns(rows))
    if json_path is not None:
        flat, *each = columns([total, *rows])
        contents[Path(json_path)] = (
            to_json({"facts": facts, "warnings": warnings, "whole": flat, "plots": each}, indent=1) + "\n"
        )
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        except OSError as error:
            raise DataError(f"'{path}' cannot be written ({error.strerror}); choose another --out") from error
    return Written(tuple(contents), total, rows, tuple(warnings))


def _inventory(farm: FarmMap, everything: Ground, path: str | Path) -> Inventory:
    if not farm.plane.crs:
        raise DataError(f"inventory '{path}' cannot be placed: the map has no crs; leave --inventory out")
    names = tuple(dict.fromkeys([*farm.names, "cacao_tree", "shade_tree"]))
    spec = InputSpec((1,), 1.0, (0.0,), (1.0,), 32, None, instance_classes=names)
    found = load_inventory(path, spec, {MAP: farm.plane})[MAP]
    if inventory_metrics([everything.plot], {MAP: found})["inventory_trees"] == 0:
        raise DataError(
            f"none of the {len(found)} trees of inventory '{path}' stands on the map's ground; are lon and lat "
            "swapped, or is it another crs or zone?"
        )
    return found


def _page(
    farm: FarmMap,
    total: PlotNumbers,
    rows: Sequence[PlotNumbers],
    *,
    grounds: Sequence[Ground],
    behind: Backdrop | None,
    facts: Mapping[str, str],
    warnings: Sequence[str],
) -> str:
    by_class = "Cover of each window that the network looked at, or of each tile."
    return document(
        f"Report of {Path(farm.path).name}",
        [
            table([], [[k, v] for k, v in facts.items()], kind="facts"),
            section("All ground", _headline(total) + _numbers(total), " ".join(warnings)),
            section("Crowns", picture(pictures.crown_map(farm, grounds, behind), "map of all crowns by class")),
            section("Cover", picture(pictures.cover_map(farm), "canopy and shade cover by window"), by_class),
            section("Crown diameters", picture(pictures.diameters(farm), "how many crowns have which diameter")),
            section("Beside the inventory", _beside(total, rows)),
            section("Plots", _plots(rows)),
            section("How to read it", bullets(NOTES)),
        ],
    )


def _headline(total: PlotNumbers) -> str:
    v = total.values
    return (
        f"<p class='big'>{_shown(v['cacao_trees'])} cacao and {_shown(v['shade_trees'])} shade trees on "
        f"{_shown(v['area_ha'])} ha: {_shown(v['cacao_per_ha'])} and {_shown(v['shade_per_ha'])} per hectare</p>"
    )


def _numbers(row: PlotNumbers) -> str:
    lines = [[title, _cell(row, name), _span(row, name)] for name, title in TITLES.items()]
    return table(["number", "value", "95 % interval"], lines)


def _plots(rows: Sequence[PlotNumbers]) -> str:
    names = [name for name in TITLES if any(not math.isnan(row.values[name]) for row in rows)]
    lines = [[row.name, *(" ".join((_cell(row, n), _span(row, n))).strip() for n in names)] for row in rows]
    return table(["plot", *(TITLES[name] for name in names)], lines, kind="wide")


def _beside(total: PlotNumbers, rows: Sequence[PlotNumbers]) -> str:
    if not total.inventory:
        return ""
    shown = [total, *(row for row in rows if row.inventory.get("inventory_trees"))]
    share = ("inventory_detection_rate", "inventory_species_agreement")
    lines = [[row.name, *(_shown(row.inventory[n], share=n in share) for n in INVENTORY)] for row in shown]
    return table(["plot", *INVENTORY.values()], lines, kind="wide", marked=[total.name])


def _cell(row: PlotNumbers, name: str) -> str:
    return _shown(row.values[name], share=name in SHARES)


def _span(row: PlotNumbers, name: str) -> str:
    low, high = row.intervals.get(name, (math.nan, math.nan))
    if math.isnan(low):
        return ""
    return f"({_shown(low, share=name in SHARES)} to {_shown(high, share=name in SHARES)})"


def _shown(value: float, *, share: bool = False) -> str:
    if math.isnan(value):
        return "-"
    if share:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"


def _plain(value: object) -> object:
    """A cell of the CSV: without what arithmetic leaves in the last digits."""
    return value if not isinstance(value, float) else "" if math.isnan(value) else f"{value:.10g}"


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _plain(value) for name, value in row.items()} for row in rows])
    return out.getvalue()
