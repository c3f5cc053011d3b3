"""Layers of a map that predict wrote, and plots that somebody drew: plain vector files of four kinds.

A file is recognised by its content and must then be opened by the driver that is meant. Merge into `data/vector.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from rasterio._err import CPLE_BaseError  # GDAL's own errors; rasterio gives them no public name
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform

from cabruca.data.placing import Plane
from cabruca.errors import DataError
from cabruca.ground import metres_per_degree

DRIVERS = ("GPKG", "GeoJSON", "ESRI Shapefile", "FlatGeobuf")
ONE_FILE_A_LAYER = (".geojson", ".json", ".fgb")
"""Files of one layer: the others lie beside it, as `name.plots.geojson`."""


@dataclass(frozen=True)
class MapLayer:
    """N features: `shapes` object `[N]`, `fields` name -> `[N]`, `crs` WKT or None."""

    path: Path
    shapes: npt.NDArray[np.object_]
    fields: Mapping[str, npt.NDArray[Any]]
    crs: str | None

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A field as float64 `[N]`, NaN where it is empty, or where the layer has no such field."""
        values = self.fields.get(name)
        if values is None:
            return np.full(len(self.shapes), np.nan)
        return np.array([np.nan if v is None else v for v in values.tolist()], dtype=np.float64)

    def texts(self, name: str) -> list[str] | None:
        """A field as text; None where the layer has no such field."""
        values = self.fields.get(name)
        return None if values is None else ["" if v is None else str(v) for v in values.tolist()]


def read_map(path: str | Path, name: str) -> MapLayer | None:
    """The layer `name` of a map; None where it has none (`crowns` it must have).

    Raises:
        DataError: not a plain file of a known kind, or damaged.
    """
    path = Path(path)
    if path.suffix.lower() in ONE_FILE_A_LAYER:
        own = path if name == "crowns" else path.with_name(f"{path.stem}.{name}{path.suffix}")
        return read_layer(own) if own == path or own.is_file() else None
    _driver(path)
    names = [str(row[0]) for row in _guarded(path, lambda: pyogrio.list_layers(path))]
    if name in names:
        return read_layer(path, name)
    if name == "crowns":
        raise DataError(f"'{path}' has no layer 'crowns' (it has {', '.join(names)}); give a map of cabruca predict")
    return None


def read_layer(path: str | Path, layer: str | None = None) -> MapLayer:
    """One layer, by default the first.

    Raises:
        DataError: not a plain file of a known kind, or damaged.
    """
    path = Path(path)
    driver = _driver(path)
    if driver == "GeoJSON":
        return _geojson(path)
    found = _guarded(path, lambda: pyogrio.read_info(path, layer=layer))
    if found["driver"] != driver:
        raise DataError(f"'{path}' is opened as {found['driver']} and not as {driver}; write it anew as GeoPackage")
    meta, _, wkb, columns = _guarded(path, lambda: pyogrio.raw.read(path, layer=layer, force_2d=True))
    shapes = _guarded(path, lambda: shapely.from_wkb(wkb))
    fields = dict(zip((str(name) for name in meta["fields"]), columns, strict=True))
    return MapLayer(path, np.asarray(shapes, dtype=object), fields, _crs(path, meta["crs"]))


def _geojson(path: Path) -> MapLayer:
    """Read without GDAL: several of its drivers answer to a JSON file, and some of them fetch what it names."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
        rows = [{"properties": {}, **row} for row in raw["features"]]
        texts = [None if row.get("geometry") is None else json.dumps(row["geometry"]) for row in rows]
        shapes = shapely.force_2d(shapely.from_geojson(np.array(texts, dtype=object)))
        names = dict.fromkeys(name for row in rows for name in row["properties"] or {})
        fields = {name: _column([(row["properties"] or {}).get(name) for row in rows]) for name in names}
        stated = ((raw.get("crs") or {}).get("properties") or {}).get("name", "OGC:CRS84")
    except (
        OSError,
        ValueError,
        RecursionError,
        KeyError,
        TypeError,
        AttributeError,
        shapely.errors.GEOSException,
    ) as error:
        raise DataError(f"'{path}' is no GeoJSON of features ({_line(error)}); write it anew") from error
    return MapLayer(path, np.asarray(shapes, dtype=object), fields, _crs(path, stated))


def _column(values: list[Any]) -> npt.NDArray[Any]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _crs(path: Path, name: str | None) -> str | None:
    """WKT of a CRS that has a place on the ground; None of others ("undefined Cartesian")."""
    if not name:
        return None
    crs = _guarded(path, lambda: CRS.from_user_input(name))
    return str(crs.to_wkt()) if crs.is_projected or crs.is_geographic else None


def plane_of(layer: MapLayer, gsd_m: float | None = None) -> Plane | None:
    """Metres for one unit of the layer's coordinates along x and y: by the length of a degree at its mean latitude, by
    the unit of its projection, and without a CRS by the ground sampling distance. None where that is unknown too."""
    if layer.crs is None:
        return None if gsd_m is None else Plane("", (gsd_m, gsd_m))
    crs = CRS.from_wkt(layer.crs)
    if crs.is_geographic:
        box = shapely.total_bounds(layer.shapes)
        return Plane(layer.crs, metres_per_degree(float(box[1] + box[3]) / 2 if np.isfinite(box).all() else 0.0))
    unit = float(crs.linear_units_factor[1])
    return Plane(layer.crs, (unit, unit))


def moved(layer: MapLayer, crs: str | None) -> npt.NDArray[np.object_]:
    """The layer's shapes in another CRS; as they are where one of both has none.

    Raises:
        DataError: a point has no place there.
    """
    if layer.crs is None or crs is None or CRS.from_wkt(layer.crs) == CRS.from_wkt(crs):
        return layer.shapes
    source, target = CRS.from_wkt(layer.crs), CRS.from_wkt(crs)

    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack([np.asarray(v) for v in transform(source, target, points[:, 0], points[:, 1])], axis=1)

    out = _guarded(layer.path, lambda: shapely.transform(layer.shapes, move))
    if not np.isfinite(shapely.total_bounds(out)).all():
        raise DataError(f"'{layer.path}' has coordinates without a place in the map's crs; is its crs stated rightly?")
    return np.asarray(out, dtype=object)


def _driver(path: Path) -> str:
    name = str(path)
    if "://" in name or name.startswith(("/vsi", "\\vsi")) or not path.is_file():
        raise DataError(f"'{name}' is not a plain file; give a GeoPackage, GeoJSON, Shapefile or FlatGeobuf")
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); check its permissions") from error
    known = {
        "GPKG": head.startswith(b"SQLite format 3\x00") and head[68:72] in (b"GPKG", b"GP10", b"GP11"),
        "ESRI Shapefile": head.startswith(b"\x00\x00\x27\x0a") and path.suffix.lower() == ".shp",
        "FlatGeobuf": head.startswith(b"fgb"),
        "GeoJSON": head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"),
    }
    for driver in DRIVERS:
        if known[driver]:
            return driver
    raise DataError(
        f"'{path}' is no GeoPackage, GeoJSON, Shapefile or FlatGeobuf, whatever its name; convert it to one"
    )


def _guarded(path: Path, call: Any) -> Any:
    try:
        return call()
    except (
        *(pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FieldError),
        *(shapely.errors.GEOSException, CPLE_BaseError, RasterioError, CRSError, UnicodeDecodeError),
    ) as error:
        raise DataError(f"'{path}' cannot be read ({_line(error)}); write it anew") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
