"""Reads an area from a vector file: the ground that somebody wants looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.crs import CRS

from cabruca.data.vector import moved, read_layer
from cabruca.errors import DataError


def read_area(path: str | Path, crs: str | None) -> Any:
    """The union of the polygons of a vector file, in `crs`.

    Args:
        crs: WKT of the raster, None where it has none: then the file's own coordinates are taken as they are.

    Raises:
        DataError: the file cannot be read, has no polygon, or has no CRS where the raster has one.
    """
    layer, what = read_layer(path, preferred=None), f"area '{path}'"
    polygons = [g for g in layer.shapes if g is not None and "Polygon" in g.geom_type and not g.is_empty]
    if not polygons:
        raise DataError(f"{what} holds no polygon; draw at least one around the ground to look at")
    area = shapely.union_all(shapely.make_valid(np.array(polygons, dtype=object)))
    if crs is None:
        return area
    if layer.crs is None:
        raise DataError(f"{what} has no coordinate reference system and the raster has one; write it with one")
    there = moved(np.array([area], dtype=object), layer.crs, CRS.from_wkt(crs), what=what, dense=True)[0]
    return shapely.make_valid(there)
