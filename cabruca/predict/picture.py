"""One raster that is predicted: checked against the checkpoint, and seen on the grid that its windows are read from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from cabruca.data import raster
from cabruca.data.raster import RasterInfo
from cabruca.errors import DataError
from cabruca.ground import Affine, metres_per_degree
from cabruca.structures import InputSpec

SAME_SCALE = 0.02
"""Scales that differ by less than this share are one: resampling would only blur."""

MOST_RATIO = 4.0
"""A raster this much finer or coarser than the training pictures is refused: crowns of another size are not seen."""


@dataclass(frozen=True)
class Metres:
    """Metres of one grid pixel along its columns and rows, and square metres of one."""

    x: float
    y: float
    area: float


@dataclass(frozen=True)
class Picture:
    """A raster and its grid.

    Attributes:
        name: as it was given. grid_hw: rows and columns. affine: from grid px to `crs`; px itself without a CRS.
        metres: None where the raster has no scale. gsd_m: metres a grid pixel, None likewise.
        note: what a person should know of how it is read, empty where there is nothing to say.
    """

    name: str
    path: Path
    info: RasterInfo
    grid_hw: tuple[int, int]
    affine: Affine
    metres: Metres | None
    gsd_m: float | None
    note: str = ""

    @property
    def crs(self) -> str | None:
        """WKT."""
        return self.info.crs


def open_picture(name: str | Path, spec: InputSpec, training_gsd_m: float | None, *, match: bool) -> Picture:
    """Look at the header and decide on the grid.

    Args:
        training_gsd_m: metres a pixel that the network was trained at; None: unknown, then the raster's own pixels.
        match: resample to it.

    Raises:
        DataError: the raster cannot be opened, lacks bands, has another pixel type than the scale was derived from,
            or is more than 4 times finer or coarser than the training pictures.
    """
    path = Path(name)
    info = raster.info(path)
    _check_pixels(path, info, spec)
    hw = (info.height, info.width)
    grid_hw, note = _grid_hw(path, info, training_gsd_m) if match else (hw, "")
    sy, sx = hw[0] / grid_hw[0], hw[1] / grid_hw[1]
    own = info.affine or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    a, b, c, d, e, f = own
    affine = (a * sx, b * sy, c, d * sx, e * sy, f) if info.affine else (sx, 0.0, 0.0, 0.0, sy, 0.0)
    metres = _metres(info, affine)
    gsd_m = None if metres is None else math.sqrt(metres.area)
    return Picture(str(name), path, info, grid_hw, affine, metres, gsd_m, note)


def _check_pixels(path: Path, info: RasterInfo, spec: InputSpec) -> None:
    if max(spec.bands) > info.count:
        raise DataError(
            f"'{path}' has {info.count} band(s) and the checkpoint was trained on bands {list(spec.bands)}; "
            f"give a raster with at least {max(spec.bands)}"
        )
    if info.palette:
        raise DataError(f"band 1 of '{path}' holds colour numbers of a palette; convert it to RGB")
    if info.dtype.startswith("complex"):
        raise DataError(f"'{path}' has complex pixels; give a raster of integers or real numbers")
    if spec.dtype is not None and raster.default_scale(info.dtype) != spec.scale:
        raise DataError(
            f"'{path}' has {info.dtype} pixels and the checkpoint was trained on {spec.dtype} divided by "
            f"{spec.scale:g}; convert the raster to {spec.dtype}"
        )


def _grid_hw(path: Path, info: RasterInfo, training_gsd_m: float | None) -> tuple[tuple[int, int], str]:
    own = (info.height, info.width)
    if training_gsd_m is None:
        return own, ""
    if info.gsd_m is None:
        return own, (
            f"'{path}' has no scale and is read as it is: crowns are found right if its pixels are about "
            f"{training_gsd_m:.3g} m, and areas in metres stay unknown"
        )
    ratio = info.gsd_m / training_gsd_m
    if not 1 / MOST_RATIO <= ratio <= MOST_RATIO:
        finer = "finer" if ratio < 1 else "coarser"
        raise DataError(
            f"'{path}' has {info.gsd_m:.3g} m a pixel and the checkpoint was trained at {training_gsd_m:.3g} m: "
            f"{max(ratio, 1 / ratio):.1f} times {finer}, and at most {MOST_RATIO:g} is allowed; train on pictures of "
            f"this scale (data.target_gsd_m), or give --gsd native if the scale in the file is wrong"
        )
    if abs(ratio - 1) <= SAME_SCALE:
        return own, ""
    grid_hw = (max(1, round(info.height * ratio)), max(1, round(info.width * ratio)))
    return grid_hw, f"'{path}' is resampled from {info.gsd_m:.3g} to {training_gsd_m:.3g} m a pixel, as in training"


def _metres(info: RasterInfo, affine: Affine) -> Metres | None:
    """In degrees: at the latitude of the raster's centre, as `raster.info` has it."""
    if info.affine is None:
        return None
    if info.geographic:
        assert info.bounds is not None
        east, north = metres_per_degree((info.bounds[1] + info.bounds[3]) / 2)
    elif info.unit_m is not None:
        east = north = info.unit_m
    else:
        return None
    a, b, _, d, e, _ = affine
    return Metres(math.hypot(a * east, d * north), math.hypot(b * east, e * north), abs(a * e - b * d) * east * north)
