"""A map cut into plots: trees, ground and cover of each, as the metrics take them. In metres of one plane."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from cabruca.data.map_layers import moved, read_plots
from cabruca.errors import DataError
from cabruca.ground import HECTARE_M2, Floats, Ints
from cabruca.metrics.canopy import Squares
from cabruca.metrics.plots import Plot
from cabruca.metrics.survey import is_cacao, is_shade
from cabruca.metrics.trees import no_trees
from cabruca.predict.farm_map import MAP, FarmMap, in_metres

TILES_A_SIDE = 8
"""Tiles along a plot's side where the map brings none (no `grid` layer)."""

LEAST_SHARE = 0.02
"""Cells of a grid with less known ground than this are left out."""


@dataclass(frozen=True)
class Ground:
    """One plot of a map.

    Attributes:
        name: of the plot. plot: its trees and ground. crowns: numbers of its trees in the map.
        tile: `[n]`, the tile that each tree stands in. known, canopy, shade: `[T]` m2 of each tile inside the plot.
        squares: the same for `metrics.canopy`.
    """

    name: str
    plot: Plot
    crowns: Ints
    tile: Ints
    known: Floats
    canopy: Floats
    shade: Floats

    @property
    def squares(self) -> Squares:
        nothing = np.zeros(len(self.known))
        areas = np.stack([self.known, self.canopy, nothing, self.shade, nothing], axis=1)
        return Squares(np.stack([np.arange(len(areas))] * 2, axis=1), areas, (1.0, 1.0))


def cut(farm: FarmMap, plots: str) -> list[Ground]:
    """The plots of a map: polygons of a file, or `grid:1ha`, `grid:50m` for squares.

    Raises:
        DataError: neither; or no plot lies on the map's ground.
    """
    shapes = _squares(farm, plots[5:]) if plots.startswith("grid:") else _drawn(farm, plots)
    out = [found for name, shape in shapes if (found := _ground(farm, name, shape)) is not None]
    if not out:
        raise DataError(f"no plot of '{plots}' lies on the ground of '{farm.path}'; is it the same place and crs?")
    return out


def whole(farm: FarmMap) -> Ground:
    """All that was looked at, as one plot."""
    found = _ground(farm, "all", farm.ground)
    assert found is not None
    return found


def _squares(farm: FarmMap, asked: str) -> list[tuple[str, BaseGeometry]]:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ha|m)", asked)
    side = 0.0 if match is None else float(match[1]) if match[2] == "m" else math.sqrt(float(match[1]) * HECTARE_M2)
    if side <= 0:
        raise DataError(f"--plots grid:{asked} is no size; write grid:1ha or grid:50m, or give a file of polygons")
    x0, y0, x1, y1 = shapely.bounds(farm.ground).tolist()
    columns, rows = math.ceil((x1 - x0) / side - 1e-9), math.ceil((y1 - y0) / side - 1e-9)
    if columns * rows > 100_000:
        raise DataError(f"--plots grid:{asked} makes {columns * rows} squares; take larger ones")
    # from the upper left corner, named as the cells of a sheet are: A1, A2, ... by columns and rows
    return [
        (f"{_letters(c)}{r + 1}", shapely.box(x0 + c * side, y1 - (r + 1) * side, x0 + (c + 1) * side, y1 - r * side))
        for r in range(rows)
        for c in range(columns)
    ]


def _letters(column: int) -> str:
    text = ""
    column += 1
    while column:
        column, rest = divmod(column - 1, 26)
        text = chr(65 + rest) + text
    return text


def _drawn(farm: FarmMap, path: str) -> list[tuple[str, BaseGeometry]]:
    layer = read_plots(path)
    if (layer.crs is None) != (farm.plane.crs == ""):
        raise DataError(f"one of '{path}' and '{farm.path}' has a crs and the other has none; save both with theirs")
    shapes = in_metres(moved(layer, farm.plane.crs or None), farm.plane)
    names = next((t for key in ("name", "plot", "id") if (t := layer.texts(key)) is not None), None)
    return [
        (names[i] if names and names[i] else f"plot {i + 1}", shapely.make_valid(shape))
        for i, shape in enumerate(shapes)
        if shape is not None and shape.area > 0
    ]


def _ground(farm: FarmMap, name: str, shape: BaseGeometry) -> Ground | None:
    both = shapely.get_parts(shapely.intersection(farm.ground, shape))
    domain = shapely.union_all(both[shapely.area(both) > 0])  # edges that only touch are no ground
    if domain.area < LEAST_SHARE * shape.area or domain.area <= 0:
        return None
    shapely.prepare(domain)
    crowns = np.flatnonzero(shapely.intersects_xy(domain, farm.trees.xy)).astype(np.int64)
    trees = farm.trees.select(crowns)
    tiles, known, canopy, shade = _cover(farm, domain, crowns)
    plot = Plot(MAP, True, trees, no_trees(), domain, float(known.sum()) or float(domain.area))
    return Ground(name, plot, crowns, _tile_of(trees.xy, tiles), known, canopy, shade)


def _cover(farm: FarmMap, domain: BaseGeometry, crowns: Ints) -> tuple[Floats, Floats, Floats, Floats]:
    """Tiles of the plot, and known ground, canopy and shade canopy of each, m2. Of the map's own cores where it has
    them, a part of a core by its share; where a core's cover is unknown, or there are none, the union of the crowns."""
    if len(farm.tiles):
        touching = shapely.STRtree(farm.tiles).query(domain, predicate="intersects")
        touching = np.sort(touching)
        tiles = farm.tiles[touching]
        pieces = shapely.intersection(tiles, domain)
        # `known` is of known pixels already, as the map's ground is: a part of a core has its share of that ground
        own = shapely.area(shapely.intersection(tiles, farm.ground))
        share = np.where(own > 0, shapely.area(pieces) / np.maximum(own, 1e-9), 0.0)
        known, canopy, shade = (v[touching] for v in (farm.known, farm.canopy, farm.shade))
        keep = share > 1e-9
        tiles, pieces, share = tiles[keep], pieces[keep], share[keep]
        known, canopy, shade = known[keep] * share, canopy[keep], shade[keep]
    else:
        tiles = _own_tiles(domain)
        pieces = shapely.intersection(tiles, domain)
        tiles, pieces = tiles[shapely.area(pieces) > 0], pieces[shapely.area(pieces) > 0]
        known = shapely.area(pieces)
        canopy = shade = np.full(len(tiles), np.nan)
    of_each = [
        _crown_cover(farm, pieces, cover, labels) for cover, labels in ((canopy, None), (shade, _of(farm, is_shade)))
    ]
    return tiles, known, of_each[0] * known, of_each[1] * known


def _crown_cover(farm: FarmMap, pieces: Floats, cover: Floats, labels: Ints | None) -> Floats:
    """`cover` with what is unknown filled in by the union of the crowns (of these labels)."""
    missing = np.flatnonzero(np.isnan(cover))
    if len(missing) == 0:
        return cover
    wanted = np.ones(len(farm.trees), np.bool_) if labels is None else np.isin(farm.trees.labels, labels)
    out = cover.copy()
    for k in missing.tolist():
        near = farm.tree.query(pieces[k], predicate="intersects")
        near = farm.covers[near[wanted[near]]]
        inside = shapely.intersection(shapely.union_all(near), pieces[k]).area if len(near) else 0.0
        out[k] = inside / pieces[k].area if pieces[k].area > 0 else 0.0
    return out


def _of(farm: FarmMap, role: Callable[[str], bool]) -> Ints:
    return np.array([k for k, name in enumerate(farm.names, 1) if role(name)], dtype=np.int64)


def labels_of(farm: FarmMap) -> tuple[Ints, Ints]:
    """Labels of cacao and of shade trees."""
    return _of(farm, is_cacao), _of(farm, is_shade)


def _own_tiles(domain: BaseGeometry) -> Floats:
    x0, y0, x1, y1 = domain.bounds
    x, y = np.linspace(x0, x1, TILES_A_SIDE + 1), np.linspace(y0, y1, TILES_A_SIDE + 1)
    low_x, low_y = np.meshgrid(x[:-1], y[:-1])
    high_x, high_y = np.meshgrid(x[1:], y[1:])
    return np.asarray(shapely.box(low_x.ravel(), low_y.ravel(), high_x.ravel(), high_y.ravel()), dtype=object)


def _tile_of(xy: Floats, tiles: Floats) -> Ints:
    """Number of the tile that each tree stands in, the nearest one where it stands in none."""
    if len(xy) == 0 or len(tiles) == 0:
        return np.zeros(len(xy), np.int64)
    found = shapely.STRtree(tiles).query_nearest(shapely.points(xy), all_matches=False)
    out = np.zeros(len(xy), np.int64)
    out[found[0]] = found[1]
    return out
