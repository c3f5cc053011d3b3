"""Reading windows of rasters, whatever their size, bands and type.

Only three formats are opened (GeoTIFF, PNG, JPEG), recognised by content, from plain files: a VRT that calls
itself .tif, a `/vsi...` path or a URL could make GDAL read anything, so they are refused. Side files (.aux.xml,
.msk, world files) are not looked at either: what counts is in the file itself.

Windows are given on a *grid*: the raster's own pixels, or the raster resampled to another size (`target_gsd_m`).
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from cabruca.data.nodata import all_known, known_pixels
from cabruca.errors import DataError
from cabruca.ground import Affine, metres_per_degree

SIGNATURES = {
    b"II*\x00": "GTiff",
    b"MM\x00*": "GTiff",
    b"II+\x00": "GTiff",  # BigTIFF
    b"MM\x00+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
}
"""First bytes of a file -> the one GDAL driver that may open it."""
MAX_HANDLES = 16
"""Rasters kept open per process; the least recently used is closed."""

Array = npt.NDArray[Any]
Rect = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


@dataclass(frozen=True)
class RasterInfo:
    """What a raster says of itself.

    Attributes:
        height, width: px. count: bands. dtype: numpy name. gsd_m: metres a pixel, None where it is not georeferenced.
        bounds: left, bottom, right, top in `crs`, None where there is none. crs: WKT or None.
        cheap_windows: a part can be read without decoding the whole (a tiled GeoTIFF). palette: band 1 holds colour
            numbers. all_valid: no NoData value, alpha band or mask. affine: from px to `crs`, in units of `unit_m`
            metres, or in degrees (`geographic`); None where there is no CRS. block_hw: rows and columns of the blocks
            that it is stored in.
    """

    height: int
    width: int
    count: int
    dtype: str
    gsd_m: float | None
    bounds: tuple[float, float, float, float] | None
    crs: str | None
    cheap_windows: bool
    palette: bool
    all_valid: bool
    affine: Affine | None = None
    unit_m: float | None = None
    geographic: bool = False
    block_hw: tuple[int, int] = (0, 0)


def resolve(folder: Path, name: str, what: str) -> Path:
    """The file `name` below `folder`.

    Args:
        what: where the name was found, for the message.

    Raises:
        DataError: the name is absolute, leaves the folder, or is a URL or GDAL's virtual path; or there is no file.
    """
    windows = PureWindowsPath(name)
    if "://" in name or name.startswith(("/vsi", "\\vsi")) or name.lstrip("/").startswith("vsi"):
        raise DataError(f"{what} '{name}' is a URL or a virtual path, and only plain files are read; copy the file")
    if Path(name).is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        raise DataError(f"{what} '{name}' leaves the images folder '{folder}'; give a path relative to that folder")
    path = folder / name
    if not path.is_file():
        raise DataError(f"{what} '{name}' is not a file in the images folder '{folder}'; check the folder and the name")
    return path


def default_scale(dtype: str) -> float:
    """What pixel values are divided by when `data.scale` is not given: 255 for uint8, 65535 for uint16, else 1."""
    return {"uint8": 255.0, "uint16": 65535.0}.get(dtype, 1.0)


def info(path: Path) -> RasterInfo:
    """Facts about the raster (its header is read, its pixels are not).

    Raises:
        DataError: it cannot be opened.
    """
    source = _open(path)
    georeferenced = source.crs is not None and not source.transform.is_identity
    return RasterInfo(
        height=source.height,
        width=source.width,
        count=source.count,
        dtype=source.dtypes[0],
        gsd_m=_gsd_m(source) if georeferenced else None,
        bounds=tuple(source.bounds) if georeferenced else None,
        crs=source.crs.to_wkt() if georeferenced else None,
        cheap_windows=source.driver == "GTiff" and source.block_shapes[0][1] < source.width,
        palette=source.colorinterp[0] == ColorInterp.palette,
        all_valid=all_known(source),
        affine=tuple(source.transform)[:6] if georeferenced else None,
        unit_m=float(source.crs.linear_units_factor[1]) if georeferenced and source.crs.is_projected else None,
        geographic=georeferenced and source.crs.is_geographic,
        block_hw=tuple(source.block_shapes[0]),
    )


def read(
    path: Path,
    bands: tuple[int, ...],
    window: Rect,
    *,
    grid_hw: tuple[int, int] | None = None,
    nearest: bool = False,
    area: Rect | None = None,
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Pixels of a window, zero outside the raster.

    Args:
        bands: 1-based.
        window: on the grid; may reach beyond it.
        grid_hw: the whole raster is seen as this many rows and columns; None: its own.
        area: the part of the raster, px, that the grid covers; None: all of it. Beyond it all is unknown.
        nearest: nearest neighbour (masks) instead of bilinear (imagery) where the grid is not the raster's own.

    Returns:
        `[C, h, w]` in the raster's type, and `[h, w]` False at NoData (value, alpha, mask, NaN) and outside.

    Raises:
        DataError: it cannot be opened or read, or has no such band.
    """
    source = _open(path)
    if max(bands) > source.count:
        raise DataError(
            f"'{path}' has {source.count} band(s) and data.bands asks for {list(bands)}; "
            f"set data.bands to numbers from 1 to {source.count}"
        )
    x, y, w, h = window
    left, top, width, height = area or (0, 0, source.width, source.height)
    grid_h, grid_w = grid_hw or (height, width)
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, grid_w), min(y + h, grid_h)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((len(bands), h, w), dtype=source.dtypes[0]), np.zeros((h, w), dtype=np.bool_)
    sx, sy = width / grid_w, height / grid_h
    part = Window(left + x0 * sx, top + y0 * sy, (x1 - x0) * sx, (y1 - y0) * sy)
    found, known = _read_part(path, source, bands, part, (y1 - y0, x1 - x0), nearest=nearest)
    if known.shape == (h, w):
        return found, known
    pixels, valid = np.zeros((len(bands), h, w), dtype=source.dtypes[0]), np.zeros((h, w), dtype=np.bool_)
    inside = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
    pixels[:, inside[0], inside[1]] = found
    valid[inside] = known
    return pixels, valid


def same_crs(a: str, b: str) -> bool:
    """Whether two CRS, as WKT or as `EPSG:...`, are one."""
    return bool(CRS.from_user_input(a) == CRS.from_user_input(b))


def source(path: Path) -> Any:
    """The opened raster of this process and thread, for the other modules of this room.

    Raises:
        DataError: it cannot be opened.
    """
    return _open(path)


def valid_share_map(path: Path, side: int = 64, *, area: Rect | None = None) -> npt.NDArray[np.float32]:
    """Share of known pixels, coarse: `[<= side, <= side]` over the area, by default the whole raster."""
    source = _open(path)
    x, y, w, h = area or (0, 0, source.width, source.height)
    shape = (min(side, h), min(side, w))
    if info(path).all_valid:
        return np.ones(shape, dtype=np.float32)
    part = Window(x, y, w, h)
    return np.asarray(_guarded(path, lambda: known_pixels(source, part, shape)), dtype=np.float32)


def _read_part(
    path: Path, source: Any, bands: tuple[int, ...], part: Window, shape: tuple[int, int], *, nearest: bool
) -> tuple[Array, npt.NDArray[np.bool_]]:
    how = Resampling.nearest if nearest else Resampling.bilinear
    pixels: Array = _guarded(
        path, lambda: source.read(list(bands), window=part, out_shape=(len(bands), *shape), resampling=how)
    )
    known: npt.NDArray[np.bool_] = _guarded(path, lambda: known_pixels(source, part, shape))
    if pixels.dtype.kind == "f":
        known &= np.isfinite(pixels).all(axis=0)
    return pixels, known


def _guarded(path: Path, call: Any) -> Any:
    try:
        return call()
    except (RasterioError, OSError) as error:
        raise DataError(f"'{path}' cannot be read ({_line(error)}); the file is damaged: make it anew") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _gsd_m(source: Any) -> float | None:
    """Metres a pixel: square root of a pixel's area on the ground.

    Degrees become metres at the latitude of the centre.
    """
    t = source.transform
    area = abs(t.a * t.e - t.b * t.d)
    if source.crs.is_geographic:
        east, north = metres_per_degree(t.d * source.width / 2 + t.e * source.height / 2 + t.f)
        return math.sqrt(area * north * east)
    if not source.crs.is_projected:
        return None
    return math.sqrt(area) * float(source.crs.linear_units_factor[1])


_handles: OrderedDict[tuple[int, str, int, int], Any] = OrderedDict()
_owner_pid = os.getpid()
_inherited: list[Any] = []


def _open(path: Path) -> Any:
    """One handle per process, thread and file. Handles of the parent process are set aside, never used or closed:
    two processes that share a file position read each other's bytes."""
    global _handles, _owner_pid
    if os.getpid() != _owner_pid:
        _inherited.append(_handles)
        _handles, _owner_pid = OrderedDict(), os.getpid()
    try:
        stat = path.stat()
    except OSError as error:
        why = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise DataError(f"'{path}' {why}; check its folder and its name") from error
    key = (threading.get_ident(), str(path), stat.st_mtime_ns, stat.st_size)
    if key in _handles:
        _handles.move_to_end(key)
        return _handles[key]
    _handles[key] = _open_fresh(path)
    if len(_handles) > MAX_HANDLES:
        _handles.popitem(last=False)[1].close()
    return _handles[key]


def _open_fresh(path: Path) -> Any:
    driver = _driver(path)
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            return rasterio.open(path.absolute(), driver=driver)
    except (RasterioError, OSError) as error:
        raise DataError(f"'{path}' cannot be opened as {driver} ({_line(error)}); make the file anew") from error


def _driver(path: Path) -> str:
    if not path.is_file():
        raise DataError(f"'{path}' is not a plain file; give a GeoTIFF, PNG or JPEG file")
    with path.open("rb") as file:
        head = file.read(4)
    driver = next((name for signature, name in SIGNATURES.items() if head.startswith(signature)), None)
    if driver is None:
        raise DataError(
            f"'{path}' begins with {head!r}, so it is no GeoTIFF, PNG or JPEG, whatever its name; convert it to one"
        )
    if driver == "PNG" and not _is_complete_png(path):
        raise DataError(f"'{path}' ends in the middle of the picture; the file was cut off: copy or make it anew")
    return driver


def _is_complete_png(path: Path, tail: int = 4096) -> bool:
    """GDAL 3.10 reads what is missing of a cut PNG as whatever lies in memory, without an error: ask for its end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - tail))
        return b"IEND\xaeB`\x82" in file.read()
