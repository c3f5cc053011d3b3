"""An orthomosaic whose pixel values are its coordinates, with round crowns at known places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from drawn_data import write_raster
from rasterio.crs import CRS
from rasterio.transform import Affine

from cabruca.data.vector import moved

HEIGHT, WIDTH = 320, 448

CENTRES = [(x + 7.25 * (k % 3), y + 5.5 * (k % 2)) for k, (x, y) in enumerate(
    (x, y) for y in range(30, HEIGHT - 20, 50) for x in range(28, WIDTH - 20, 46))]  # fmt: skip
RADIUS = 11.0

UTM, DEGREES = "EPSG:31984", "EPSG:4326"
PLACES: dict[str, tuple[str, Affine]] = {
    "metres": (UTM, Affine(0.5, 0, 478512.0, 0, -0.5, 8363720.0)),
    "degrees": (DEGREES, Affine(4.7e-6, 0, -39.19, 0, -4.4e-6, -14.79)),
    "turned": (UTM, Affine.translation(478512.0, 8363720.0) * Affine.rotation(33) * Affine.scale(0.5, -0.5)),
    "south_up": (UTM, Affine(0.5, 0, 478512.0, 0, 0.5, 8363560.0)),
    "feet": ("EPSG:2263", Affine(1.6, 0, 1000000.0, 0, -1.6, 200000.0)),
}


def draw_ortho(path: Path, crs: str, transform: Affine, **profile: Any) -> Path:
    """uint16 bands column, row and a constant; values are those at pixel centres, times 64."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    bands = np.stack([columns * 64, rows * 64, np.full_like(rows, 1000)]).astype(np.uint16)
    return write_raster(path, bands, crs=crs, transform=transform, **profile)


def discs(centres: Sequence[tuple[float, float]] = CENTRES, radius: float = RADIUS) -> np.ndarray:
    """Round crowns in pixels."""
    return np.asarray(shapely.buffer(shapely.points(np.array(centres)), radius, quad_segs=16))


def to_map(shapes: np.ndarray, transform: Affine) -> np.ndarray:
    def move(p: np.ndarray) -> np.ndarray:
        return np.stack([transform.a * p[:, 0] + transform.b * p[:, 1] + transform.c,
                         transform.d * p[:, 0] + transform.e * p[:, 1] + transform.f], axis=1)  # fmt: skip

    return np.asarray(shapely.transform(shapes, move))


def write_labels(path: Path, shapes: Any, crs: str | None, *, to: str | None = None, field: str = "species",
                 values: Sequence[str | None] | None = None, **extra: Any) -> Path:  # fmt: skip
    """Shapes in `crs` to a vector file in the CRS `to`; every third is a shade tree."""
    shapes = np.asarray(shapes, dtype=object)
    if to is not None and crs is not None:
        shapes = moved(shapes, CRS.from_user_input(crs), CRS.from_user_input(to), what="test")
    values = values or ["shade_tree" if k % 3 == 0 else "cacao" for k in range(len(shapes))]
    columns = [np.array(values, dtype=object)] if field else []
    driver = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile", ".fgb": "FlatGeobuf"}[path.suffix]
    kind = extra.pop("geometry_type", "Unknown" if driver != "ESRI Shapefile" else "Polygon")
    pyogrio.raw.write(path, shapely.to_wkb(shapes), columns, [field] if field else [], crs=to or crs, driver=driver,
                      geometry_type=kind, **extra)  # fmt: skip
    return path
