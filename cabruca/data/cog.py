"""Writes cloud optimised GeoTIFFs from a plane on disk, block by block."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio import Affine as Transform
from rasterio._err import CPLE_BaseError  # GDAL's own errors; rasterio gives them no public name
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from cabruca.durable import replace
from cabruca.errors import DataError
from cabruca.ground import Affine

BLOCK_PX = 512
CACHE_BYTES = 64 << 20
"""Of GDAL's block cache while a raster is written."""


def write_cog(
    path: Path,
    part_at: Callable[[int, int, int, int], npt.NDArray[Any]],
    hw: tuple[int, int],
    dtype: str,
    *,
    nodata: float,
    affine: Affine | None,
    crs: str | None,
    nearest: bool,
) -> None:
    """Write a raster of `hw` rows and columns to `path`, atomically, in bounded memory.

    Args:
        part_at: gives the pixels from (y0, x0) to (y1, x1), asked for as `part_at(y0, x0, y1, x1)`.
        affine: from px to `crs` (WKT); None: the raster has no place.
        nearest: overviews take one pixel (class numbers) instead of the mean.

    Raises:
        DataError: the disk is full, or the folder may not be written.
    """
    plain, cog = path.with_name(f".{path.name}.plain.tmp"), path.with_name(f".{path.name}.tmp")
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": hw[0], "width": hw[1], "count": 1, "dtype": dtype, "nodata": nodata,
        "tiled": True, "blockxsize": BLOCK_PX, "blockysize": BLOCK_PX, "compress": "deflate", "SPARSE_OK": True,
        "BIGTIFF": "IF_SAFER", "crs": crs,
    }  # fmt: skip
    if affine is not None:
        profile["transform"] = Transform(*affine)
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **profile) as out:
                for y, x in product(range(0, hw[0], BLOCK_PX), range(0, hw[1], BLOCK_PX)):
                    part = part_at(y, x, min(y + BLOCK_PX, hw[0]), min(x + BLOCK_PX, hw[1]))
                    if (part != nodata).any():
                        out.write(part, 1, window=Window(x, y, part.shape[1], part.shape[0]))
            overviews = "nearest" if nearest else "average"
            rasterio.shutil.copy(
                plain, cog, driver="COG", compress="deflate", BIGTIFF="IF_SAFER", overview_resampling=overviews
            )
        replace(cog, path)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise DataError(
            f"'{path}' cannot be written ({' '.join(str(error).split())}); free disk space, or choose another folder"
        ) from error
    finally:
        plain.unlink(missing_ok=True)
        cog.unlink(missing_ok=True)
