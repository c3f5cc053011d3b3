"""Writes the map: three layers in a GeoPackage, or a file a layer in GeoJSON and FlatGeobuf; whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from cabruca.durable import replace
from cabruca.errors import DataError
from cabruca.predict.rows import Row

FORMATS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
"""Ending of the map's file -> how it is written."""

Fields = dict[str, type]
"""Column -> int, float or str."""

CROWNS: Fields = {
    "crown_id": int, "class": str, "score": float, "area_m2": float, "diameter_m": float, "centroid_x": float,
    "centroid_y": float, "canopy_share": float, "shape": str, "image": str,
}  # fmt: skip
PLOTS: Fields = {
    "image": str, "gsd_m": float, "area_ha": float, "n_crowns": int, "canopy_cover": float, "score": str,
    "checkpoint": str, "checkpoint_sha256": str, "settings": str, "guessed_classes": str,
}  # fmt: skip
GEOMETRY = {"crowns": "Polygon", "plots": "MultiPolygon", "grid": "Polygon"}

ROWS_AT_ONCE = 1000
"""Rows handed over at a time: they bound the memory."""


def grid_fields(names: Sequence[str]) -> Fields:
    """Columns of the layer `grid` for these instance classes."""
    fixed: Fields = {"window": int, "image": str, "known_ha": float, "canopy_cover": float, "shade_cover": float}
    return {**fixed, **{f"n_{name}": int for name in names}}


def format_of(out: Path) -> str:
    """The driver for an output's name.

    Raises:
        DataError: another ending.
    """
    found = FORMATS.get(out.suffix.lower())
    if found is None:
        raise DataError(f"--out '{out}' ends in '{out.suffix}'; give a name that ends in {', '.join(FORMATS)}")
    return found


def files_of(out: Path) -> dict[str, Path]:
    """Layer -> the file it lies in. `farm.geojson` holds the crowns, `farm.plots.geojson` and `farm.grid.geojson` lie
    beside it."""
    if format_of(out) == "GPKG":
        return dict.fromkeys(GEOMETRY, out)
    return {"crowns": out, **{n: out.with_name(f"{out.stem}.{n}{out.suffix}") for n in ("plots", "grid")}}


def write_map(out: Path, scratch: Path, layers: dict[str, tuple[Fields, Iterable[Row]]], crs: str | None) -> None:
    """Write the layers; the file under its own name comes last, and whole.

    Args:
        scratch: an existing folder on the same disk, where the files are prepared. crs: WKT, None: none.

    Raises:
        DataError: the file cannot be written.
    """
    driver, files = format_of(out), files_of(out)
    package = scratch / "map.gpkg"
    package.unlink(missing_ok=True)
    for name, (fields, rows) in layers.items():
        _append(package, name, fields, rows, crs)
    if driver == "GPKG":
        _published(package, out)
        return
    prepared = {name: _converted(package, name, scratch / f"{name}{out.suffix}", driver, crs) for name in layers}
    for name in sorted(prepared, key=lambda n: n == "crowns"):  # the crowns last: who finds them finds all
        _published(prepared[name], files[name])
    package.unlink()


def _published(prepared: Path, path: Path) -> None:
    try:
        replace(prepared, path)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be written ({error.strerror}); free disk space, or mend the folder"
        ) from error


def _append(package: Path, layer: str, fields: Fields, rows: Iterable[Row], crs: str | None) -> None:
    import pyogrio.raw
    from pyogrio.errors import DataLayerError, DataSourceError

    parts = _parts(rows)
    if crs is None:
        warnings.filterwarnings("ignore", message="'crs' was not provided")
    try:
        for part in chain([next(parts, [])], parts):  # a layer without rows is written too
            pyogrio.raw.write(
                package,
                np.array([bytes.fromhex(row["wkb"]) for row in part], dtype=object),
                [_column(part, name, kind) for name, kind in fields.items()],
                np.array(list(fields), dtype=object),
                field_mask=[np.array([row[name] is None for row in part], dtype=bool) for name in fields],
                layer=layer,
                driver="GPKG",
                geometry_type=GEOMETRY[layer],
                crs=crs,
                append=package.is_file(),
            )
    except (DataSourceError, DataLayerError, RuntimeError) as error:
        raise DataError(f"the map cannot be written ({' '.join(str(error).split())}); free disk space") from error


def _parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    rows = iter(rows)
    while part := list(islice(rows, ROWS_AT_ONCE)):
        yield part


def _column(rows: Sequence[Row], name: str, kind: type) -> np.ndarray[Any, Any]:
    dtype: Any = {int: np.int64, float: np.float64, str: object}[kind]
    blank: Any = {int: 0, float: np.nan, str: ""}[kind]
    return np.array([blank if row[name] is None else row[name] for row in rows], dtype=dtype)


def _converted(package: Path, layer: str, path: Path, driver: str, crs: str | None) -> Path:
    """One layer of the GeoPackage in another format, as a stream."""
    import pyogrio.raw
    from pyogrio.errors import DataLayerError, DataSourceError

    path.unlink(missing_ok=True)
    try:
        with pyogrio.raw.open_arrow(package, layer=layer, use_pyarrow=False, batch_size=ROWS_AT_ONCE) as (meta, stream):
            pyogrio.raw.write_arrow(
                stream,
                path,
                driver=driver,
                layer=layer,
                geometry_name=meta["geometry_name"] or "wkb_geometry",
                geometry_type=GEOMETRY[layer],
                crs=crs,
            )
    except (DataSourceError, DataLayerError, RuntimeError) as error:
        raise DataError(f"the map cannot be written ({' '.join(str(error).split())}); free disk space") from error
    return path
