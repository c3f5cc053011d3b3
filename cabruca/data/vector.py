"""Reading vector files: GeoPackage, GeoJSON, Shapefile and FlatGeobuf, plain files only.

As with rasters, a file is recognised by its content and opened by the one driver that is meant. GeoJSON is read
without GDAL: several of its drivers answer to a JSON file, and some of them fetch what it names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
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

from cabruca.errors import DataError, did_you_mean

Shapes = npt.NDArray[Any]
"""Object array `[N]` of shapely geometries; None where a feature has none."""

SHAPEFILE_MAGIC = b"\x00\x00\x27\x0a"
SQLITE_MAGIC = b"SQLite format 3\x00"
GPKG_IDS = (b"GPKG", b"GP10", b"GP11")
FORMATS = "GeoPackage (.gpkg), GeoJSON, Shapefile (.shp) or FlatGeobuf (.fgb)"
PREFERRED_LAYER = "crowns"

EDGE_STEPS = 64
"""Long edges of an area are divided into so many before it is moved to another CRS: a straight line bends there."""


@dataclass(frozen=True)
class Layer:
    """One layer: its shapes `[N]`, the values of each field `[N]`, its CRS (None: the file states none)."""

    path: Path
    shapes: Shapes
    fields: Mapping[str, Sequence[Any]]
    crs: CRS | None

    def values(self, field: str, remedy: str) -> Sequence[Any]:
        """The values of a field.

        Raises:
            DataError: there is no such field; lists those that there are.
        """
        if field not in self.fields:
            there = ", ".join(self.fields) or "none"
            hint = did_you_mean(field, self.fields) or ";"
            raise DataError(f"'{self.path}' has no field '{field}'{hint} its fields are: {there}; {remedy}")
        return self.fields[field]


def read_layer(
    path: str | Path, *, layer: str | None = None, preferred: str | None = PREFERRED_LAYER, may_be_empty: bool = False
) -> Layer:
    """A layer of a vector file; by default the only one, or the one named as is preferred.

    Args:
        preferred: None for areas, whose layer no option names: then only a file of one layer will do.

    Raises:
        DataError: not a plain file of a known format, damaged, without features, or of several layers and none named.
    """
    path = Path(path)
    driver = _driver(path)
    found = _geojson(path) if driver == "GeoJSON" else _ogr(path, driver, layer, preferred)
    if len(found.shapes) == 0 and not may_be_empty:
        raise DataError(f"'{path}' holds no feature; give a layer with at least one")
    return found


def layer_names(path: Path) -> list[str]:
    """The layers of a file of many (GeoPackage); tables without shapes, such as QGIS's `layer_styles`, are left out.

    Raises:
        DataError: not a plain file of a known format, or damaged.
    """
    driver = _driver(path)
    if driver == "GeoJSON":
        return [path.stem]
    try:
        return [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise DataError(f"'{path}' cannot be read as {driver} ({_line(error)}); write it anew") from error


def _driver(path: Path) -> str:
    name = str(path)
    if "://" in name or ":/" in name.replace("\\", "/")[2:] or name.startswith(("/vsi", "\\vsi")):
        raise DataError(f"'{name}' is a URL or a virtual path, and only plain files are read; copy the file")
    if not path.exists():
        raise DataError(f"'{path}' is not there; check the path, or make the file first")
    if not path.is_file():
        raise DataError(f"'{path}' is not a plain file; give a {FORMATS} file")
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}); check its permissions") from error
    if head.startswith(SQLITE_MAGIC) and head[68:72] in GPKG_IDS:
        return "GPKG"
    if head.startswith(SHAPEFILE_MAGIC) and path.suffix.lower() == ".shp":
        return "ESRI Shapefile"
    if head[:4] == b"fgb\x03" and head[4:7] == b"fgb" and b"\0" in head[7:12]:  # no text begins like this
        return "FlatGeobuf"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{"):
        return "GeoJSON"
    raise DataError(f"'{path}' begins with {head[:8]!r}, so it is no {FORMATS}, whatever its name; convert it to one")


def _ogr(path: Path, driver: str, layer: str | None, preferred: str | None) -> Layer:
    try:
        names = layer_names(path)
        if not names:
            raise DataError(f"'{path}' cannot be read as {driver} (it has no layer of shapes); write it anew")
        chosen = layer or (names[0] if len(names) == 1 else preferred)
        if chosen not in names:
            what = f"has no layer '{layer}'" if layer else "has several layers"
            remedy = "name one of them" if layer or preferred else "save the right one as a file of its own"
            raise DataError(f"'{path}' {what}; {remedy}: {', '.join(names)}")
        if pyogrio.read_info(path, layer=chosen)["driver"] != driver:
            raise DataError(f"'{path}' is not opened as {driver}; convert it to a {FORMATS} file")
        meta, _, wkb, columns = pyogrio.raw.read(path, layer=chosen, force_2d=True)
        shapes = shapely.from_wkb(wkb)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FieldError) as error:
        raise DataError(f"'{path}' cannot be read as {driver} ({_line(error)}); write it anew") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"'{path}' holds text of another encoding than it states ({_line(error)}); save it with its encoding, or "
            "as GeoPackage"
        ) from error
    except shapely.errors.GEOSException as error:
        raise DataError(f"'{path}' holds a geometry that cannot be read ({_line(error)}); write it anew") from error
    fields = {str(k): [_plain(v) for v in values] for k, values in zip(meta["fields"], columns, strict=True)}
    return Layer(path, np.asarray(shapes, dtype=object), fields, _crs(path, meta["crs"]) if meta["crs"] else None)


def _geojson(path: Path) -> Layer:
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"'{path}' is not valid GeoJSON ({_line(error)}); write it anew") from error
    kind = raw.get("type")
    rows = raw.get("features") if kind == "FeatureCollection" else [raw] if kind == "Feature" else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"'{path}' is of type {kind!r}; a GeoJSON file of labels is a FeatureCollection")
    try:
        texts = [None if row.get("geometry") is None else json.dumps(row["geometry"]) for row in rows]
        shapes = shapely.force_2d(shapely.from_geojson(np.asarray(texts, dtype=object)))
    except (shapely.errors.GEOSException, ValueError, TypeError) as error:
        raise DataError(f"'{path}' holds a geometry that cannot be read ({_line(error)}); write it anew") from error
    properties = [row.get("properties") if isinstance(row.get("properties"), dict) else {} for row in rows]
    names = dict.fromkeys(name for row in properties for name in row)
    fields = {name: [row.get(name) for row in properties] for name in names}
    stated = raw.get("crs")
    inner = stated.get("properties") if isinstance(stated, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    layer = Layer(path, np.asarray(shapes, dtype=object), fields, _crs(path, name or "OGC:CRS84"))
    if name is None:
        _refuse_metres_as_degrees(layer)
    return layer


def _refuse_metres_as_degrees(layer: Layer) -> None:
    if len(layer.shapes) == 0:
        return
    box = shapely.total_bounds(layer.shapes)
    if np.isfinite(box).all() and (np.abs(box) > (361, 91, 361, 91)).any():
        raise DataError(
            f"'{layer.path}' states no crs, which means degrees, and its coordinates reach {np.abs(box).max():.0f}; "
            "save it with its crs (QGIS: Save Features As, GeoPackage)"
        )


def _crs(path: Path, name: str) -> CRS:
    try:
        return CRS.from_user_input(name)
    except (CRSError, ValueError) as error:
        raise DataError(
            f"'{path}' states the crs '{name}', which is not known ({_line(error)}); save it anew"
        ) from error


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def moved(shapes: Shapes, source: CRS, target: CRS, *, what: str, dense: bool = False) -> Shapes:
    """The shapes in another CRS.

    Args:
        what: whose shapes, for the message. dense: long edges get points in between (areas; not crowns).

    Raises:
        DataError: a point has no place there.
    """
    if source == target or len(shapes) == 0:
        return shapes
    if dense:
        x0, y0, x1, y1 = shapely.total_bounds(shapes)
        step = max(x1 - x0, y1 - y0) / EDGE_STEPS
        shapes = shapely.segmentize(shapes, step) if step > 0 else shapes

    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.stack([np.asarray(v) for v in transform(source, target, points[:, 0], points[:, 1])], axis=1)

    try:
        out = shapely.transform(shapes, move)
    except (CPLE_BaseError, RasterioError) as error:
        raise DataError(f"{what} has coordinates without a place in the raster's crs ({_line(error)})") from error
    box = shapely.total_bounds(out)
    if not np.isfinite(box).all() and np.isfinite(shapely.total_bounds(shapes)).all():
        raise DataError(f"{what} has coordinates without a place in the raster's crs; is its crs stated rightly?")
    return np.asarray(out, dtype=object)
