"""The rasters of a map, opened and checked together before the first is worked on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import affinity

from cabruca.data.area import read_area
from cabruca.data.raster import same_crs
from cabruca.errors import DataError, RunError
from cabruca.predict.journal import folder_of, state_of
from cabruca.predict.picture import Picture, open_picture
from cabruca.predict.plan import Plan, Request
from cabruca.predict.planes import raster_files
from cabruca.predict.vector import files_of, format_of
from cabruca.predict.windows import Grid

CODED = re.compile(r'^COMP|\b(AUTHORITY|ID)\["\w+","?\w+"?\]\]\s*$')
"""WKT of a CRS with a code, or of a compound one (its part on the ground has it): GeoJSON states no other CRS."""


@dataclass(frozen=True)
class Scene:
    """One picture with its grid, and the area wanted in grid px (None: all of it)."""

    number: int
    picture: Picture
    grid: Grid
    area: Any


def check_output(request: Request, *, resume: bool) -> None:
    """Before minutes of work.

    Raises:
        RunError: the map is there already, or was begun and --resume is not given. DataError: no such format or folder,
            or a folder for rasters that is none, or may not be written.
    """
    out = request.out
    format_of(out)
    if not out.parent.is_dir():
        raise DataError(f"--out '{out}': there is no folder '{out.parent}'; make it, or choose another")
    taken = [path for path in dict.fromkeys(files_of(out).values()) if path.exists()]
    if taken and not resume:
        raise RunError(f"'{taken[0]}' is there already; choose another --out, or remove it")
    rasters = [path for name in request.images for path in raster_files(request.raster_out, name) if path.exists()]
    if rasters and not resume:
        raise RunError(f"'{rasters[0]}' is there already; choose another --raster-out, or remove it")
    if state_of(out).exists() and not resume:
        raise RunError(f"'{out}' was begun before; go on with --resume, or remove '{folder_of(out)}'")
    if request.raster_out is not None:
        _check_raster_out(request.raster_out)


def _check_raster_out(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"--raster-out '{folder}' cannot be a folder ({error.strerror}); choose another, or remove what is there"
        ) from error
    if not os.access(folder, os.W_OK):
        raise DataError(f"--raster-out '{folder}' may not be written; change its permissions, or choose another")


def scenes_of(plan: Plan) -> list[Scene]:
    """Open every picture before the first is worked on.

    Raises:
        DataError: a raster, the area, pictures of several CRS, two of one name, or none for GeoJSON.
        ConfigError: the overlap is not smaller than the window.
    """
    request, scenes = plan.request, list[Scene]()
    for number, name in enumerate(request.images):
        picture = open_picture(name, plan.spec, plan.training_gsd_m, match=request.gsd == "match")
        grid = Grid.over(picture.grid_hw, plan.tile_size, plan.overlap(picture))
        area = None if request.aoi is None else _area_px(request.aoi, picture)
        scenes.append(Scene(number, picture, grid, area))
    first = scenes[0].picture
    if format_of(request.out) == "GeoJSON" and not (first.crs and CODED.search(first.crs)):
        raise DataError(
            f"'{first.name}' has no crs with a code (EPSG), and GeoJSON without one is read as degrees; let --out "
            "end in .gpkg or .fgb"
        )
    for scene in scenes[1:]:
        if not _one_crs(scene.picture.crs, first.crs):
            raise DataError(
                f"'{scene.picture.name}' and '{first.name}' have different coordinate reference systems, and a map has "
                "one; predict them into two maps, or bring them into one system"
            )
    stems = [Path(s.picture.name).stem for s in scenes]
    if request.raster_out is not None and len(set(stems)) < len(stems):
        raise DataError("two images have the same file name, and --raster-out names rasters by it; rename one")
    if request.aoi is not None and all(s.area.is_empty for s in scenes):
        raise DataError(f"area '{request.aoi}' does not touch any of the images; check its coordinates")
    return scenes


def _one_crs(a: str | None, b: str | None) -> bool:
    """Two programs write one CRS in different words."""
    return a == b if a is None or b is None else same_crs(a, b)


def _area_px(aoi: Path, picture: Picture) -> Any:
    """The area in grid px, cut at the raster."""
    a, b, c, d, e, f = picture.affine
    inverse = np.linalg.inv(np.array([[a, b, c], [d, e, f], [0, 0, 1]]))
    (a, b, c), (d, e, f), _ = inverse.tolist()
    moved = affinity.affine_transform(read_area(aoi, picture.crs), [a, b, d, e, c, f])
    height, width = picture.grid_hw
    area = shapely.make_valid(moved).intersection(shapely.box(0, 0, width, height))
    shapely.prepare(area)
    return area
