"""Reads an area from a vector file: the ground that somebody wants looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

from cabruca.errors import DataError

FIRST_BYTES = {
    ".geojson": (b"{",),
    ".json": (b"{",),
    ".gpkg": (b"SQLite format 3",),
    ".fgb": (b"fgb",),
    ".shp": (b"\x00\x00\x27\x0a",),
}
"""Ending of a file -> how it begins. A VRT that calls itself .gpkg could make GDAL read anything."""


def read_area(path: str | Path, crs: str | None) -> Any:
    """The union of the polygons in the first layer of a vector file, in `crs`.

    Args:
        crs: WKT of the raster, None where it has none: then the file's own coordinates are taken as they are.

    Raises:
        DataError: the file cannot be read, has no polygon, or has no CRS where the raster has one.
    """
    import pyogrio.raw
    from pyogrio.errors import DataSourceError

    path = Path(path)
    begins = FIRST_BYTES.get(path.suffix.lower())
    if begins is None:
        raise DataError(f"area '{path}' ends in '{path.suffix}'; give a file that ends in {', '.join(FIRST_BYTES)}")
    if not path.is_file():
        raise DataError(f"area '{path}' is not a file; check the name")
    with path.open("rb") as file:
        head = file.read(256).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head.startswith(begins):
        raise DataError(f"area '{path}' begins with {head[:4]!r}, so it is no {path.suffix} file; make it anew")
    try:
        meta, _, geometry, _ = pyogrio.raw.read(path.absolute(), columns=[])
        shapes = shapely.from_wkb(geometry)
    except (DataSourceError, ValueError, shapely.errors.ShapelyError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"area '{path}' cannot be read ({said}); make the file anew") from error
    polygons = [g for g in shapes if g is not None and g.geom_type in ("Polygon", "MultiPolygon") and not g.is_empty]
    if not polygons:
        raise DataError(f"area '{path}' holds no polygon; draw at least one around the ground to look at")
    area = shapely.union_all(shapely.make_valid(np.array(polygons, dtype=object)))
    if crs is None:
        return area
    if not meta["crs"]:
        raise DataError(f"area '{path}' has no coordinate reference system and the raster has one; write it with one")
    return _moved(area, meta["crs"], crs, path)


def _moved(area: Any, have: str, want: str, path: Path) -> Any:
    try:
        source, target = CRS.from_user_input(have), CRS.from_user_input(want)
        if source == target:
            return area

        def move(points: Any) -> Any:
            x, y = transform(source, target, points[:, 0], points[:, 1])
            return np.stack([x, y], axis=1)

        return shapely.make_valid(shapely.transform(shapely.segmentize(area, _step(area)), move))
    except CRSError as error:
        said = " ".join(str(error).split())
        raise DataError(f"area '{path}' cannot be brought into the raster's CRS ({said})") from error


def _step(area: Any) -> float:
    """Edges are cut before they are moved: a straight line in one CRS is bent in another."""
    x0, y0, x1, y1 = area.bounds
    return max(x1 - x0, y1 - y0, 1e-12) / 100
