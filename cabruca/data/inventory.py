"""Plantation inventories: trees that people counted on the ground, from JSON or CSV, placed on the pictures' planes.

JSON: `{"crs": "EPSG:4326", "trees": [{"id", "species", "coordinates": [x, y], "crown_diameter_m"}]}`. CSV: columns `id,
species, x, y, crown_diameter_m` and perhaps `crs`; or `lon, lat` instead of `x, y`, which says that they are degrees
(EPSG:4326). `crown_diameter_m` may be absent or empty. Without `crs`, coordinates are in the rasters' CRS.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from cabruca.data.placing import Plane
from cabruca.errors import DataError, did_you_mean
from cabruca.ground import Floats, Inventory
from cabruca.structures import InputSpec

DEGREES = "EPSG:4326"


@dataclass(frozen=True)
class Listed:
    """An inventory as it stands in its file: species, coordinates `[N, 2]`, diameters `[N]` (NaN = none), and the CRS
    that it states, None = the rasters'."""

    path: Path
    species: tuple[str, ...]
    xy: Floats
    diameter_m: Floats
    crs: str | None


def load_inventory(path: str | Path, spec: InputSpec, planes: Mapping[str, Plane]) -> dict[str, Inventory]:
    """Plane name -> the whole inventory on that plane, in metres.

    Species are instance classes, with or without `_tree`, in any case, or names that `data.category_map` knows; those
    that it ignores are left out.

    Raises:
        DataError: the file is missing or malformed, a species is no class, the CRS is unknown or has to be stated, or
            no picture is georeferenced.
    """
    listed = read_inventory(path)
    labels = np.array([_label(name, spec, listed.path) for name in listed.species], dtype=np.int64)
    kept = labels > 0
    if not planes:
        raise DataError(
            f"inventory '{path}' cannot be placed: none of the pictures is georeferenced; give GeoTIFFs with a CRS, or "
            "leave validation.plantation_data out"
        )
    crs = {plane.crs for plane in planes.values()}
    if listed.crs is None and len(crs) > 1:
        raise DataError(f'inventory \'{path}\' states no crs and the pictures have {len(crs)}; add "crs": "EPSG:..."')
    return {
        name: Inventory(labels[kept], _on_plane(listed, plane)[kept], listed.diameter_m[kept])
        for name, plane in planes.items()
    }


def read_inventory(path: str | Path) -> Listed:
    """The file as it stands; CSV by its suffix, else JSON.

    Raises:
        DataError: it is missing or malformed; names the tree.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"inventory '{path}' is not there; check validation.plantation_data or --inventory") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"inventory '{path}' cannot be read ({error}); give a JSON or CSV file in UTF-8") from error
    rows, crs = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(path, text)
    numbers = [_numbers(path, k, row) for k, row in enumerate(rows, 1)]
    table = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    return Listed(path, tuple(str(row["species"]) for row in rows), table[:, :2], table[:, 2], crs)


def _json_rows(path: Path, text: str) -> tuple[Sequence[Mapping[str, Any]], str | None]:
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"inventory '{path}' is no JSON ({error}); mend it, or give a .csv file") from error
    trees = raw.get("trees") if isinstance(raw, dict) else None
    if not isinstance(trees, list) or not all(isinstance(t, dict) for t in trees):
        raise DataError(f'inventory \'{path}\' has no list of trees; write {{"trees": [{{"species": ...}}]}}')
    rows = []
    for k, tree in enumerate(trees, 1):
        at = tree.get("coordinates")
        if not isinstance(at, list) or len(at) != 2 or not isinstance(tree.get("species"), str):
            raise DataError(f'inventory \'{path}\': tree {k} needs "species" and "coordinates": [x, y]; add them')
        rows.append({**tree, "x": at[0], "y": at[1]})
    crs = raw.get("crs")
    if crs is not None and not isinstance(crs, str):
        raise DataError(f"inventory '{path}': crs is {crs!r}; write a name such as \"{DEGREES}\"")
    return rows, crs


def _csv_rows(path: Path, text: str) -> tuple[Sequence[Mapping[str, Any]], str | None]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    names = {str(n).strip().lower(): n for n in reader.fieldnames or []}
    degrees = "lon" in names and "lat" in names
    x, y = ("lon", "lat") if degrees else ("x", "y")
    missing = [n for n in ("species", x, y) if n not in names]
    if missing:
        raise DataError(
            f"inventory '{path}' has no column {', '.join(missing)}; give species, x, y (or lon, lat) and, where "
            "measured, crown_diameter_m"
        )
    rows = []
    for k, row in enumerate(reader, 1):
        if any(row[names[n]] is None for n in ("species", x, y)):
            raise DataError(f"inventory '{path}': tree {k} has fewer columns than the first line; complete it")
        own = {n: row[column] for n, column in names.items()}
        rows.append({**own, "x": own[x], "y": own[y], "species": own["species"].strip()})
    stated = {str(row["crs"]).strip() for row in rows if row.get("crs")}
    if len(stated) > 1:
        raise DataError(f"inventory '{path}' states the crs {', '.join(sorted(stated))}; use one for all trees")
    return rows, next(iter(stated), DEGREES if degrees else None)


def _numbers(path: Path, k: int, row: Mapping[str, Any]) -> tuple[float, float, float]:
    diameter = row.get("crown_diameter_m")
    try:
        x, y = float(row["x"]), float(row["y"])
        width = math.nan if diameter in (None, "") else float(str(diameter))
    except (TypeError, ValueError) as error:
        raise DataError(f"inventory '{path}': tree {k} holds what is no number ({error}); mend it") from error
    if not (math.isfinite(x) and math.isfinite(y)) or width <= 0 or math.isinf(width):
        raise DataError(
            f"inventory '{path}': tree {k} lies at ({x}, {y}), {width} m wide; give finite numbers above 0 m"
        )
    return x, y, width


def _label(species: str, spec: InputSpec, path: Path) -> int:
    """1 = first instance class, 0 = ignored."""
    target = spec.category_map.get(species, species).casefold()
    known: dict[str, int] = {}
    for label, name in enumerate(spec.instance_classes, 1):
        known |= {name.casefold(): label, name.casefold().removesuffix("_tree"): label}
    if target == "ignore":
        return 0
    if target not in known:
        hint = did_you_mean(target, known) or f"; species are {', '.join(spec.instance_classes)}"
        raise DataError(
            f"inventory '{path}' lists the species '{species}', which is no class{hint}; or map it, for example "
            f"data.category_map: {{{species}: {spec.instance_classes[0]}}}"
        )
    return known[target]


def _on_plane(listed: Listed, plane: Plane) -> Floats:
    xy = listed.xy
    if listed.crs is not None and len(xy):
        try:
            x, y = transform(CRS.from_user_input(listed.crs), CRS.from_wkt(plane.crs), xy[:, 0], xy[:, 1])
        except (CRSError, ValueError) as error:
            raise DataError(
                f"inventory '{listed.path}' states the crs '{listed.crs}', which is not known ({error}); write one "
                f'such as "{DEGREES}"'
            ) from error
        xy = np.stack([np.asarray(x), np.asarray(y)], axis=1)
    return np.asarray(xy * np.array(plane.metres_xy))
