"""Plantation inventories: trees that people counted on the ground, from JSON or CSV, placed on the pictures' planes.

JSON: `{"crs": "EPSG:4326", "trees": [{"id", "species", "coordinates": [x, y], "crown_diameter_m"}]}`. CSV: columns `id,
species, x, y, crown_diameter_m` and perhaps `crs`; or `lon, lat` instead of `x, y`, which says that they are degrees
(EPSG:4326). `crown_diameter_m` may be absent or empty. Without `crs`, coordinates are in the rasters' CRS.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio._err import CPLE_BaseError  # GDAL's own errors; rasterio gives them no public name
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from cabruca.data.placing import Plane
from cabruca.errors import DataError, did_you_mean
from cabruca.ground import Floats, Ground, Inventory
from cabruca.structures import InputSpec

_log = logging.getLogger("cabruca")

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


def load_inventory(
    path: str | Path, spec: InputSpec, planes: Mapping[str, Plane], grounds: Sequence[Ground] = ()
) -> dict[str, Inventory]:
    """Plane name -> the whole inventory on that plane, in metres.

    A warning says where most of its trees lie outside of the pictures.

    Species are instance classes, with or without `_tree`, in any case, or names that `data.category_map` knows; those
    that it ignores are left out.

    Args:
        grounds: of the pictures, to compare with where the trees lie; none: nothing is compared.

    Raises:
        DataError: the file is missing or malformed, a species is no class, the CRS is unknown or has to be stated, no
            picture is georeferenced, or none of the trees lies in a picture.
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
    placed = {name: _on_plane(listed, plane) for name, plane in planes.items()}
    there = {name: np.isfinite(xy).all(axis=1) for name, xy in placed.items()}
    _refuse(listed, np.asarray(np.any(list(there.values()), axis=0)))
    if grounds and len(listed.xy):
        _compare_places(listed, placed, planes, grounds)
    return {
        name: Inventory(labels[own], xy[own], listed.diameter_m[own])
        for name, xy in placed.items()
        for own in [kept & there[name]]
    }


def _compare_places(
    listed: Listed, placed: Mapping[str, Floats], planes: Mapping[str, Plane], grounds: Sequence[Ground]
) -> None:
    shown = np.zeros(len(listed.xy), dtype=np.bool_)
    boxes: dict[str, list[Floats]] = {}
    for ground in grounds:
        if ground.plane in placed:
            box, xy = ground.frame(), placed[ground.plane]
            boxes.setdefault(ground.plane, []).append(box)
            shown |= np.all((xy >= box[:2]) & (xy <= box[2:]), axis=1)
    if 2 * int(shown.sum()) >= len(shown) or not boxes:
        return
    name = next(n for n in boxes if np.isfinite(placed[n]).all(axis=1).any())
    scale = np.array(planes[name].metres_xy * 2)
    own, pictures = placed[name][np.isfinite(placed[name]).all(axis=1)], np.stack(boxes[name])
    spans = (np.concatenate([own.min(axis=0), own.max(axis=0)]),
             np.concatenate([pictures[:, :2].min(axis=0), pictures[:, 2:].max(axis=0)]))  # fmt: skip
    trees, there = (_span(span / scale) for span in spans)
    said = (
        f"inventory '{listed.path}': {int(shown.sum())} of its {len(shown)} trees lie in the pictures; the trees span "
        f"{trees}, the pictures {there} in their crs; are lon and lat swapped, or is it another crs or zone?"
    )
    if not shown.any():
        raise DataError(f"{said} Mend the coordinates, or state the crs")
    _log.warning("%s", said)


def _span(box: Floats) -> str:
    x0, y0, x1, y1 = (f"{v:.6g}" if abs(v) < 1000 else f"{v:.0f}" for v in box.tolist())
    return f"x {x0} to {x1}, y {y0} to {y1}"


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
    try:
        rows, crs = _csv_rows(path, text) if path.suffix.lower() == ".csv" else _json_rows(path, text)
    except csv.Error as error:
        raise DataError(f"inventory '{path}' is no CSV ({error}); save it again as CSV with commas, UTF-8") from error
    _refuse_doubles(path, [str(row.get("id") or "").strip() for row in rows])
    numbers = [_numbers(path, k, row) for k, row in enumerate(rows, 1)]
    table = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    return Listed(path, tuple(str(row["species"]) for row in rows), table[:, :2], table[:, 2], crs)


def _json_rows(path: Path, text: str) -> tuple[Sequence[Mapping[str, Any]], str | None]:
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:  # JSONDecodeError, and a number of more digits than Python reads
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
    reader = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
    names = [n.strip().lower() for n in next(reader, [])]
    doubled = sorted({n for n in names if n and names.count(n) > 1})
    if doubled:
        raise DataError(f"inventory '{path}' has the column {', '.join(doubled)} twice; rename or remove one")
    degrees = {"lon", "lat"} <= set(names)
    missing = [n for n in (("species",) if degrees else ("species", "x", "y")) if n not in names]
    if missing:
        hint = "; its columns are separated by semicolons, write commas" if len(names) == 1 and ";" in names[0] else ""
        raise DataError(
            f"inventory '{path}' has no column {', '.join(missing)}{hint}; give species, x, y (or lon, lat) and, where "
            "measured, crown_diameter_m"
        )
    rows = [_csv_row(path, k, names, cells) for k, cells in enumerate((c for c in reader if c), 1)]
    stated = {row["crs"].strip() for row in rows if row.get("crs", "").strip()}
    if len(stated) > 1:
        raise DataError(f"inventory '{path}' states the crs {', '.join(sorted(stated))}; use one for all trees")
    crs = next(iter(stated), None)
    x, y = ("lon", "lat") if degrees else ("x", "y")
    if degrees and crs is not None and not _known_crs(path, crs).is_geographic:
        if not {"x", "y"} <= set(names):
            raise DataError(f"inventory '{path}' gives lon, lat and the crs '{crs}', which is not in degrees; drop one")
        x, y = "x", "y"
    placed = [{**row, "x": row[x], "y": row[y], "species": row["species"].strip()} for row in rows]
    return placed, crs or (DEGREES if degrees else None)


def _csv_row(path: Path, k: int, names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) < len(names):
        raise DataError(f"inventory '{path}': tree {k} has fewer columns than the first line; complete it")
    if len(cells) > len(names):
        raise DataError(
            f"inventory '{path}': tree {k} has {len(cells)} columns and the first line {len(names)}; write decimals "
            "with a point, not a comma, and put text with commas into quotes"
        )
    return dict(zip(names, cells, strict=True))


def _refuse_doubles(path: Path, ids: Sequence[str]) -> None:
    seen: dict[str, int] = {}
    for k, ident in enumerate(ids, 1):
        if ident and ident in seen:
            raise DataError(f"inventory '{path}': trees {seen[ident]} and {k} have the id '{ident}'; give each its own")
        seen[ident] = k


def _numbers(path: Path, k: int, row: Mapping[str, Any]) -> tuple[float, float, float]:
    diameter = row.get("crown_diameter_m")
    try:
        x, y = float(row["x"]), float(row["y"])
        width = math.nan if diameter is None or not str(diameter).strip() else float(str(diameter))
    except (TypeError, ValueError, OverflowError) as error:
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
        crs = _known_crs(listed.path, listed.crs)
        if crs.is_geographic:
            _refuse(listed, np.asarray((np.abs(xy) <= (360, 90)).all(axis=1)))
        try:
            x, y = transform(crs, CRS.from_wkt(plane.crs), xy[:, 0], xy[:, 1])
        except CPLE_BaseError:
            x, y = np.transpose([_moved(crs, plane, point) for point in xy.tolist()])
        xy = np.stack([np.asarray(x), np.asarray(y)], axis=1)
    return np.asarray(xy * np.array(plane.metres_xy))


def _moved(crs: CRS, plane: Plane, point: Sequence[float]) -> tuple[float, float]:
    """The point in the plane's CRS, NaN where that has no such place."""
    try:
        x, y = transform(crs, CRS.from_wkt(plane.crs), [point[0]], [point[1]])
    except CPLE_BaseError:
        return math.nan, math.nan
    return float(x[0]), float(y[0])


def _refuse(listed: Listed, good: npt.NDArray[np.bool_]) -> None:
    """Name the first tree that cannot be placed."""
    if not good.all():
        k = int(np.argmin(good))
        x, y = listed.xy[k].tolist()
        raise DataError(
            f"inventory '{listed.path}': tree {k + 1} at ({x:g}, {y:g}) in {listed.crs} has no place in the pictures' "
            "crs; is it another crs, or are lon and lat swapped?"
        )


def _known_crs(path: Path, name: str) -> CRS:
    try:
        crs = CRS.from_user_input(name)
    except (CRSError, ValueError) as error:
        raise DataError(
            f"inventory '{path}' states the crs '{name}', which is not known ({error}); write one such as \"{DEGREES}\""
        ) from error
    if not (crs.is_geographic or crs.is_projected):
        raise DataError(
            f"inventory '{path}' states the crs '{name}', which has no x and y; write a map's or \"{DEGREES}\""
        )
    return crs
