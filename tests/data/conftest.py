"""Fixtures of the data tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from drawn_data import DataSet
from rasterio.transform import from_origin


@pytest.fixture
def data_set(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path)


@pytest.fixture
def utm() -> Callable[[float], dict[str, Any]]:
    """A GeoTIFF profile in southern Bahia with pixels of the given metres."""
    return lambda gsd: {"crs": "EPSG:31984", "transform": from_origin(478512.0, 8363720.0, gsd, gsd)}
