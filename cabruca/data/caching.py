"""How much of a raster GDAL keeps in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import rasterio


@contextlib.contextmanager
def bounded_cache(limit_bytes: int) -> Iterator[None]:
    """Inside, GDAL keeps at most so many bytes of decoded blocks, in all threads; by default it may take 5 % of the
    machine's memory, which then grows with the raster."""
    with rasterio.Env(GDAL_CACHEMAX=limit_bytes):
        yield
