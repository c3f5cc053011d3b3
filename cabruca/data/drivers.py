"""What the installed GDAL can open."""

from __future__ import annotations

import rasterio

from cabruca.data.raster import SIGNATURES


def gdal_version() -> str:
    """Such as `3.9.3`."""
    return str(rasterio.__gdal_version__)


def missing_drivers() -> list[str]:
    """Names of the drivers that pictures are opened with and that this GDAL has not; empty where all are there."""
    with rasterio.Env() as env:
        there = set(env.drivers())
    return sorted(set(SIGNATURES.values()) - there)
