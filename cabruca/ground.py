"""Where pictures lie on the ground, and an inventory of what stands there. A leaf: it imports numpy only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HECTARE_M2 = 10_000.0

Affine = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f: x = a * column + b * row + c, y = d * column + e * row + f."""


@dataclass(frozen=True)
class Ground:
    """Where one window lies.

    Attributes:
        plane: windows of equal plane share coordinates: a CRS, or the picture's id where it has none.
        affine: from px of the window to the plane. in_metres: the plane's unit is the metre; else px of the picture.
        picture: id of the picture. offset_xy_px: the window's corner in it; picture_hw_px: its rows and columns.
    """

    plane: str
    affine: Affine
    in_metres: bool
    picture: str
    offset_xy_px: tuple[int, int]
    picture_hw_px: tuple[int, int]

    @classmethod
    def alone(cls, picture: str, picture_hw_px: tuple[int, int], gsd_m: float | None) -> Ground:
        """A picture that is a plane of its own: its corner is (0, 0), its unit the metre where `gsd_m` is known."""
        scale = 1.0 if gsd_m is None else gsd_m
        return cls(picture, (scale, 0.0, 0.0, 0.0, scale, 0.0), gsd_m is not None, picture, (0, 0), picture_hw_px)

    def at(self, x_px: int, y_px: int) -> Ground:
        """The ground of the window whose corner lies at these px of this one."""
        (a, b, _, d, e, _), (left, top) = self.affine, self.offset_xy_px
        c, f = self.to_plane(np.array([[x_px, y_px]], dtype=np.float64))[0].tolist()
        return replace(self, affine=(a, b, c, d, e, f), offset_xy_px=(left + x_px, top + y_px))

    def to_plane(self, xy_px: Floats) -> Floats:
        """Points `[N, 2]` of the window on the plane."""
        a, b, c, d, e, f = self.affine
        x, y = xy_px[:, 0], xy_px[:, 1]
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    def boxes_to_plane(self, boxes_xyxy_px: Floats) -> Floats:
        """Boxes `[N, 4]` of the moved inscribed ellipses: the half extents of a moved ellipse with half axes p, q are
        the lengths of the rows of L diag(p, q). On a raster that is north up they are the moved boxes themselves."""
        a, b, _, d, e, _ = self.affine
        centre = self.to_plane((boxes_xyxy_px[:, :2] + boxes_xyxy_px[:, 2:]) / 2)
        half = (boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]) / 2
        extent = np.stack([np.hypot(a * half[:, 0], b * half[:, 1]), np.hypot(d * half[:, 0], e * half[:, 1])], axis=1)
        return np.concatenate([centre - extent, centre + extent], axis=1)

    def frame(self) -> Floats:
        """Box `[4]`, xyxy on the plane, around the whole picture."""
        (left, top), (height, width) = self.offset_xy_px, self.picture_hw_px
        corners = self.to_plane(np.array([[x - left, y - top] for x in (0.0, width) for y in (0.0, height)]))
        return np.concatenate([corners.min(axis=0), corners.max(axis=0)])

    @property
    def pixel_area(self) -> float:
        """Of one pixel, in squares of the plane's unit."""
        a, b, _, d, e, _ = self.affine
        return abs(a * e - b * d)

    @property
    def pixel_side(self) -> float:
        """Side of a square of a pixel's area, in the plane's unit."""
        return math.sqrt(self.pixel_area)


@dataclass(frozen=True)
class Inventory:
    """Trees that people measured, placed on one plane.

    Attributes:
        labels: int64 `[N]`, 1 = first instance class. xy_m: float64 `[N, 2]`. diameter_m: `[N]`, NaN = not measured.
    """

    labels: Ints
    xy_m: Floats
    diameter_m: Floats

    def __len__(self) -> int:
        return len(self.labels)


def metres_per_degree(latitude_deg: float) -> tuple[float, float]:
    """Metres of one degree to the east and to the north: the series of the WGS 84 ellipsoid's arc lengths (NIMA
    TR8350.2)."""
    phi = math.radians(latitude_deg)
    north = 111132.92 - 559.82 * math.cos(2 * phi) + 1.175 * math.cos(4 * phi)
    east = 111412.84 * math.cos(phi) - 93.5 * math.cos(3 * phi) + 0.118 * math.cos(5 * phi)
    return east, north
