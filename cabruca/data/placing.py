"""Puts pictures on planes in metres: pictures of one CRS share a plane, others are planes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cabruca.data.pictures import PictureInfo, PictureSet
from cabruca.data.raster import RasterInfo
from cabruca.ground import Affine, Ground, metres_per_degree

ONE_PLACE_DEG = 0.05
"""Pictures in degrees whose latitudes follow each other within this (5 km) share a plane: over 5 km the length of a
degree of longitude changes by less than 0.1 % up to 50 degrees of latitude."""


@dataclass(frozen=True)
class Plane:
    """What a plane was made of: a CRS (WKT), and metres for one of its units along x and y."""

    crs: str
    metres_xy: tuple[float, float]


def picture_grounds(pictures: PictureSet) -> tuple[list[Ground], dict[str, Plane]]:
    """Where each picture lies on the grid it is read on, and plane name -> plane of those that have a CRS.

    A projected CRS is the plane itself, in metres. Pictures in degrees share a plane with those near them, made by the
    length of a degree at their mean latitude. A picture without either is a plane of its own.

    Raises:
        DataError: a raster that cannot be opened.
    """
    headers = [pictures.header(i) for i in range(len(pictures))]
    latitudes = _plane_latitudes(headers)
    grounds, planes = [], {}
    for i, (picture, header) in enumerate(zip(pictures.pictures, headers, strict=True)):
        plane = _plane(header, latitudes.get(i))
        if plane is None or header.affine is None:
            grounds.append(Ground.alone(str(picture.image.id), picture.grid_hw, pictures.gsd_m(i)))
            continue
        name = f"{plane.crs} {plane.metres_xy}"
        planes[name] = plane
        affine = _on_grid(header.affine, picture, plane)
        grounds.append(Ground(name, affine, True, str(picture.image.id), (0, 0), picture.grid_hw))
    return grounds, planes


def _plane(header: RasterInfo, latitude: float | None) -> Plane | None:
    if header.crs is None:
        return None
    if latitude is not None:
        return Plane(header.crs, metres_per_degree(latitude))
    return None if header.unit_m is None else Plane(header.crs, (header.unit_m, header.unit_m))


def _plane_latitudes(headers: Sequence[RasterInfo]) -> dict[int, float]:
    """Picture number -> mean latitude of the pictures it shares a plane with, for those in degrees."""
    out: dict[int, float] = {}
    for crs in sorted({h.crs for h in headers if h.geographic and h.crs is not None}):
        rows = sorted((_latitude(h), i) for i, h in enumerate(headers) if h.geographic and h.crs == crs)
        group = [rows[0]]
        for before, row in pairwise([*rows, (float("inf"), -1)]):
            if row[0] - before[0] <= ONE_PLACE_DEG:
                group.append(row)
                continue
            mean = sum(latitude for latitude, _ in group) / len(group)
            out.update({i: mean for _, i in group})
            group = [row]
    return out


def _latitude(header: RasterInfo) -> float:
    assert header.bounds is not None
    return (header.bounds[1] + header.bounds[3]) / 2


def _on_grid(affine: Affine, picture: PictureInfo, plane: Plane) -> Affine:
    """From px of the grid, where the raster may be resampled, to metres of the plane."""
    a, b, c, d, e, f = affine
    sx, sy = picture.image.width / picture.grid_hw[1], picture.image.height / picture.grid_hw[0]
    mx, my = plane.metres_xy
    return (a * sx * mx, b * sy * mx, c * mx, d * sx * my, e * sy * my, f * my)
