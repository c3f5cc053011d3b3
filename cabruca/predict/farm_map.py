"""A map that predict wrote, read back: crowns, ground and windows, in metres of one plane."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from cabruca.data.map_layers import MapLayer, plane_of, read_map
from cabruca.data.placing import Plane
from cabruca.errors import DataError
from cabruca.ground import HECTARE_M2, Floats
from cabruca.metrics.trees import Trees, no_trees

ELLIPSE_POINTS = 64
"""Corners of the polygon that stands for an ellipse; it has the ellipse's area."""

MAP = "map"
"""Name of the plane that the map lies on."""


@dataclass(frozen=True)
class FarmMap:
    """What predict wrote, in metres.

    Attributes:
        path: of the map. plane: what its coordinates were. names: its classes. trees: all crowns. outlines: their
            polygons `[N]`. covers: the ground under each `[N]`: the outline, of a box the ellipse in it. ground: what
            was looked at.
        tiles: polygons `[T]` of the windows' cores, with `known` m2 `[T]` and canopy and shade cover `[T]`, NaN where
            unknown. guessed: classes that had no example in training. facts: of the map, for people.
    """

    path: Path
    plane: Plane
    names: tuple[str, ...]
    trees: Trees
    outlines: Floats
    covers: Floats
    ground: BaseGeometry
    tiles: Floats
    known: Floats
    canopy: Floats
    shade: Floats
    guessed: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)

    @cached_property
    def tree(self) -> shapely.STRtree:
        """Of `covers`."""
        return shapely.STRtree(self.covers)

    @property
    def cover_source(self) -> str:
        """What canopy and shade cover of this map are read off."""
        unknown = int(np.isnan(self.canopy).sum())
        if unknown == len(self.canopy):
            return "of the union of the crowns (the map has none of land cover)"
        if unknown == 0:
            return "of the land cover that the network saw"
        return (
            f"of the land cover that the network saw; in {unknown} of {len(self.canopy)} windows of the union of crowns"
        )


def read_farm(path: str | Path) -> FarmMap:
    """A map of `cabruca predict`.

    Raises:
        DataError: not a map, no crowns layer or class field, or neither CRS nor ground sampling distance.
    """
    crowns, plots, grid = (read_map(path, name) for name in ("crowns", "plots", "grid"))
    assert crowns is not None
    classes = crowns.texts("class")
    if classes is None:
        raise DataError(f"'{path}' has no field 'class' in its crowns; give a map of cabruca predict")
    gsd = plots.numbers("gsd_m") if plots is not None else np.zeros(0)
    plane = plane_of(plots or crowns, float(gsd[0]) if len(gsd) and np.isfinite(gsd[0]) else None)
    if plane is None:
        raise DataError(
            f"'{path}' has neither a crs nor gsd_m, so nothing of it is known in metres; georeference the image"
        )
    names = _names(classes, grid)
    outlines = in_metres(crowns.shapes, plane)
    covers = _covers(outlines, crowns.texts("shape"))
    tiles, known, canopy, shade = _tiles(grid, plane)
    ground = shapely.union_all(in_metres(plots.shapes, plane)) if plots is not None and len(plots.shapes) else None
    if ground is None or ground.is_empty:
        parts = tiles if len(tiles) else outlines
        ground = shapely.union_all(tiles) if len(tiles) else shapely.box(*shapely.total_bounds(parts))
    if not ground.area > 0:
        raise DataError(
            f"'{path}' shows no ground: neither crowns, plots nor grid; predict on an image with known pixels"
        )
    return FarmMap(
        Path(path),
        plane,
        names,
        _trees(crowns, classes, names, outlines, covers),
        *(outlines, covers, ground, tiles, known, canopy, shade),
        _guessed(plots),
        _facts(plots),
    )


def _names(classes: Sequence[str], grid: MapLayer | None) -> tuple[str, ...]:
    counted = [k[2:] for k in (grid.fields if grid is not None else {}) if k.startswith("n_")]
    return tuple(dict.fromkeys([*counted, *sorted(set(classes))]))


def in_metres(shapes: npt.NDArray[Any], plane: Plane) -> Floats:
    """Shapes in the map's coordinates on its plane."""
    return np.asarray(shapely.transform(shapes, lambda xy: xy * np.array(plane.metres_xy)), dtype=object)


def _covers(outlines: Floats, kinds: Sequence[str] | None) -> Floats:
    """A box stands for the ellipse in it (`pi/4 w h`), also where the raster is turned."""
    out = outlines.copy()
    angle = np.arange(ELLIPSE_POINTS) * (2 * math.pi / ELLIPSE_POINTS)
    swell = math.sqrt(angle[1] / math.sin(angle[1]))  # a polygon on the ellipse would be smaller
    for k in np.flatnonzero(np.array(kinds or []) == "box").tolist():
        points = shapely.get_coordinates(outlines[k])
        if len(points) != 5:  # somebody edited it
            continue
        u, v = points[1] - points[0], points[3] - points[0]
        middle = points[0] + (u + v) / 2
        out[k] = shapely.polygons(middle + swell / 2 * (np.outer(np.cos(angle), u) + np.outer(np.sin(angle), v)))
    return out


def _tiles(grid: MapLayer | None, plane: Plane) -> tuple[Floats, Floats, Floats, Floats]:
    if grid is None:
        return np.zeros(0, dtype=object), np.zeros(0), np.zeros(0), np.zeros(0)
    shapes = in_metres(grid.shapes, plane)
    known = grid.numbers("known_ha") * HECTARE_M2
    return shapes, np.where(np.isnan(known), shapely.area(shapes), known), grid.numbers("canopy_cover"), grid.numbers(
        "shade_cover"
    )  # fmt: skip


def _trees(crowns: MapLayer, classes: Sequence[str], names: tuple[str, ...], outlines: Floats, covers: Floats) -> Trees:
    n = len(outlines)
    if n == 0:
        return no_trees()
    area, diameter = crowns.numbers("area_m2"), crowns.numbers("diameter_m")
    area = np.where(np.isnan(area), shapely.area(covers), area)
    boxes = shapely.bounds(outlines)
    scores = crowns.numbers("score")
    return Trees(
        xy=shapely.get_coordinates(shapely.centroid(outlines)),
        boxes=boxes,
        labels=np.array([names.index(c) + 1 for c in classes], dtype=np.int64),
        scores=np.where(np.isnan(scores), 1.0, scores),
        area=area,
        diameter=np.where(np.isnan(diameter), 2 * np.sqrt(area / math.pi), diameter),
        head_diameter=np.full(n, np.nan),
        cut=np.zeros(n, dtype=np.bool_),
        picture=np.array(crowns.texts("image") or [MAP] * n),
        frame=np.zeros((n, 4)),
        window=np.full(n, MAP),
        seam=np.zeros(n, dtype=np.bool_),
        stencils=np.full(n, None, dtype=object),
    )


def _guessed(plots: MapLayer | None) -> tuple[str, ...]:
    """Maps of before do not say."""
    told = (plots.texts("guessed_classes") if plots is not None else None) or []
    return tuple(dict.fromkeys(name for text in told for name in text.split(", ") if name))


def _facts(plots: MapLayer | None) -> dict[str, str]:
    if plots is None or len(plots.shapes) == 0:
        return {}
    images = plots.texts("image") or []
    told = {"images": ", ".join(images[:5]) + (f" and {len(images) - 5} more" if len(images) > 5 else "")}
    for name, field_ in (("score", "score"), ("checkpoint", "checkpoint"), ("sha256", "checkpoint_sha256")):
        values = plots.texts(field_)
        if values and values[0]:
            told[name] = _scores(values[0]) if name == "score" else values[0]
    gsd = plots.numbers("gsd_m")
    if np.isfinite(gsd).any():
        told["ground sampling distance"] = f"{float(np.nanmean(gsd)):.3f} m"
    return told


def _scores(text: str) -> str:
    """`{"cacao_tree": 0.42, ...}`, as predict writes the scores that crowns count from, for people."""
    try:
        scores = {str(name): float(score) for name, score in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return text
    if len(set(scores.values())) == 1:
        return f"{next(iter(scores.values())):.3g} or more"
    return ", ".join(f"{name.replace('_', ' ')} {score:.3g} or more" for name, score in scores.items())
