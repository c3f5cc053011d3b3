"""Rasters of `cabruca data prepare`, the ground that is labelled on each, and the blocks it is divided into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine

from cabruca.data import raster
from cabruca.data.prepare_labels import Labels, only_polygons
from cabruca.data.raster import RasterInfo
from cabruca.data.vector import Shapes, moved, read_layer
from cabruca.errors import DataError
from cabruca.ground import metres_per_degree

SLOW_READ = 4.0
"""Reading a window that decodes so many times its pixels is slow."""


@dataclass(frozen=True)
class Ortho:
    """One raster: its file, its name in the images folder, what it says of itself."""

    path: Path
    name: str
    info: RasterInfo

    @cached_property
    def crs(self) -> CRS:
        return CRS.from_wkt(self.info.crs)

    @cached_property
    def frame(self) -> shapely.Geometry:
        """All of it, px."""
        return shapely.box(0, 0, self.info.width, self.info.height)

    def to_px(self, shapes: Shapes, crs: CRS, *, what: str, dense: bool = False) -> Shapes:
        """Shapes of any CRS in pixels, x to the right, y down."""
        return _affine(moved(shapes, crs, self.crs, what=what, dense=dense), ~Affine(*(self.info.affine or ())))

    def to_crs(self, shapes: Shapes, crs: CRS, *, dense: bool = True) -> Shapes:
        """Shapes in pixels in another CRS."""
        ground = _affine(shapes, Affine(*(self.info.affine or ())))
        return moved(ground, self.crs, crs, what=f"'{self.path}'", dense=dense)

    def slow_share(self, side: int) -> float:
        """Pixels that are decoded for a window of that side, over its own; 1 for a tiled raster."""
        if self.info.cheap_windows:
            return 1.0
        rows, columns = self.info.block_hw
        wide = min(self.info.width, side + columns - 1) if columns < self.info.width else self.info.width
        return wide * min(self.info.height, side + rows - 1) / side**2


def _affine(shapes: Shapes, m: Affine) -> Shapes:
    def move(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        x, y = points[:, 0], points[:, 1]
        return np.stack([m.a * x + m.b * y + m.c, m.d * x + m.e * y + m.f], axis=1)

    return np.asarray(shapely.transform(shapes, move), dtype=object)


def open_orthos(paths: Sequence[str], tile_size: int) -> tuple[Path, list[Ortho]]:
    """The images folder that all names are relative to, and the rasters.

    Raises:
        DataError: one cannot be opened, has no CRS, is given twice, or is smaller than a tile.
    """
    files = [Path(p) for p in paths]
    twice = [str(p) for i, p in enumerate(files) if p.resolve() in [q.resolve() for q in files[:i]]]
    if twice:
        raise DataError(f"--image {twice[0]} is given twice; give each raster once")
    folder, names = _folder(files)
    found = [Ortho(p, name, raster.info(p)) for p, name in zip(files, names, strict=True)]
    for ortho in found:
        info = ortho.info
        if info.crs is None or info.affine is None or not (info.geographic or info.unit_m):
            raise DataError(
                f"'{ortho.path}' has no crs, so labels have no place on it; georeference it (QGIS: Raster, Projections)"
            )
        if min(info.height, info.width) < tile_size:
            raise DataError(
                f"'{ortho.path}' is {info.width} x {info.height} px and --tile-size is {tile_size}; a tile must fit: "
                f"use --tile-size {max(32, min(info.height, info.width) // 32 * 32)}"
            )
    return folder, found


def _folder(files: Sequence[Path]) -> tuple[Path, list[str]]:
    parents = {p.parent for p in files}
    if len(parents) == 1:
        return files[0].parent, [p.name for p in files]
    whole = [p.resolve() for p in files]
    common = next(up for up in whole[0].parents if all(up in p.parents for p in whole))
    return common, [p.relative_to(common).as_posix() for p in whole]


def unit_metres(ortho: Ortho) -> tuple[float, float]:
    """Metres of one unit of the raster's CRS, along x and y."""
    if ortho.info.geographic:
        assert ortho.info.bounds is not None
        return metres_per_degree((ortho.info.bounds[1] + ortho.info.bounds[3]) / 2)
    unit = ortho.info.unit_m or 1.0
    return unit, unit


def read_area(path: str, what: str) -> tuple[shapely.Geometry, CRS]:
    """All polygons of a file as one area.

    Raises:
        DataError: it cannot be read, has no CRS or no polygon.
    """
    found = read_layer(path, preferred=None)
    if found.crs is None:
        raise DataError(f"{what} '{path}' states no crs; save it with its crs")
    parts = [shapely.make_valid(s) for s in found.shapes if s is not None]
    area = only_polygons(shapely.union_all(parts)) if parts else None
    if area is None:
        raise DataError(f"{what} '{path}' holds no polygon; draw the area as polygons")
    return area, found.crs


def labelled_ground(
    ortho: Ortho, shapes_px: Shapes, areas: Sequence[tuple[shapely.Geometry, CRS]]
) -> shapely.Geometry | None:
    """The ground of the raster that is taken to be labelled, px; None where there is none.

    The intersection of the areas that are given (`--aoi`, the regions); without one, the convex hull of the labels:
    what lies outside of it, nobody may have looked at.
    """
    out = ortho.frame
    for area, crs in areas:
        moved_area = ortho.to_px(np.array([area], dtype=object), crs, what="the area", dense=True)[0]
        own = only_polygons(shapely.make_valid(moved_area))
        out = shapely.Polygon() if own is None else out.intersection(own)
    if not areas:
        out = out.intersection(shapely.convex_hull(shapely.GeometryCollection(list(shapes_px))))
    return only_polygons(out)


def touching(ortho: Ortho, shapes_px: Shapes) -> npt.NDArray[np.intp]:
    """Which labels share ground with the raster."""
    return np.flatnonzero(shapely.intersects(ortho.frame, shapes_px) & ~shapely.touches(ortho.frame, shapes_px))


def refuse_far(orthos: Sequence[Ortho], labels: Labels, path: str) -> None:
    """Raises DataError: no label touches any raster; says where both lie."""
    ortho = orthos[0]
    try:
        there = shapely.total_bounds(moved(labels.shapes, labels.crs, ortho.crs, what=f"'{path}'"))
    except DataError:
        there = np.full(4, math.nan)
    box = ortho.info.bounds or ()
    raise DataError(
        f"none of the labels of '{path}' touches the raster{'s' if len(orthos) > 1 else ''}: in the crs of "
        f"'{ortho.path}' they span {_span(there.tolist())}, the raster {_span(box)}; is it the right file, or the "
        "wrong crs?"
    )


def _span(box: Sequence[float]) -> str:
    x0, y0, x1, y1 = (f"{v:.6g}" if abs(v) < 1000 else f"{v:.0f}" for v in box)
    return f"x {x0} to {x1}, y {y0} to {y1}"
