"""Puts pictures on planes in metres: pictures of one CRS share a plane, others are planes of their own."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from rasterio.crs import CRS

from cabruca.data.pictures import PictureInfo, PictureSet
from cabruca.data.raster import RasterInfo
from cabruca.ground import Affine, Ground, metres_per_degree

_log = logging.getLogger("cabruca")

SAME_SCALE = 0.02
"""The annotation file and a raster that differ by more than this on the ground sampling distance mean two scales."""

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
    length of a degree at their mean latitude. A picture without either is a plane of its own. Where the annotation file
    gives a picture another ground sampling distance than its raster, the picture is stretched from its corner to what
    the annotation file says, as crown diameters are, and a warning names both.

    Raises:
        DataError: a raster that cannot be opened.
    """
    headers = _in_one_writing([pictures.header(i) for i in range(len(pictures))])
    latitudes = _plane_latitudes(headers)
    grounds, planes = [], {}
    two_scales: list[str] = []
    for i, (picture, header) in enumerate(zip(pictures.pictures, headers, strict=True)):
        plane = _plane(header, latitudes.get(i))
        if plane is None or header.affine is None:
            grounds.append(Ground.alone(str(picture.image.id), picture.grid_hw, pictures.gsd_m(i)))
            continue
        name = f"{plane.crs} {plane.metres_xy}"
        planes[name] = plane
        affine = _on_grid(header.affine, picture, plane)
        stretch = _stretch(affine, picture, pictures.gsd_m(i))
        if stretch != 1.0:
            stated = picture.image.gsd_m or math.nan
            two_scales.append(f"image {picture.image.id}: {stated:g} m stated, {stated / stretch:.4g} m in its raster")
            a, b, c, d, e, f = affine
            affine = (a * stretch, b * stretch, c, d * stretch, e * stretch, f)
        grounds.append(Ground(name, affine, True, str(picture.image.id), (0, 0), picture.grid_hw))
    if two_scales:
        _log.warning(
            "%d of %d pictures have another ground sampling distance in the annotation file than in the raster (first: "
            "%s); what the file states is taken, and places in the raster's crs are no longer exact; mend "
            "images[].gsd_m, or leave it out", len(two_scales), len(pictures), two_scales[0],
        )  # fmt: skip
    return grounds, planes


def _in_one_writing(headers: Sequence[RasterInfo]) -> list[RasterInfo]:
    """The headers with each CRS as it was first written: two programs write one CRS in two ways."""
    first: dict[str, str] = {}
    seen: list[tuple[CRS, str]] = []
    for text in dict.fromkeys(h.crs for h in headers if h.crs is not None):
        crs = CRS.from_wkt(text)
        code = crs.to_epsg()
        first[text] = next((t for c, t in seen if c == crs or (code is not None and c.to_epsg() == code)), text)
        seen.append((crs, text))
    return [h if h.crs is None else replace(h, crs=first[h.crs]) for h in headers]


def _stretch(affine: Affine, picture: PictureInfo, gsd_m: float | None) -> float:
    """How much longer a pixel is by the annotation file than by the raster; 1 where they agree."""
    if picture.image.gsd_m is None or gsd_m is None:
        return 1.0
    a, b, _, d, e, _ = affine
    ratio = gsd_m / math.sqrt(abs(a * e - b * d))
    return ratio if abs(ratio - 1) > SAME_SCALE else 1.0


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
    left, top = (0, 0) if picture.image.part is None else picture.image.part.window[:2]
    c, f = c + a * left + b * top, f + d * left + e * top
    return (a * sx * mx, b * sy * mx, c * mx, d * sx * my, e * sy * my, f * my)
