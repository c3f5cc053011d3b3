"""Reads the layers of a map that predict wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import shapely


def layer(path: Path, name: str | None = "crowns") -> tuple[dict[str, list[Any]], Any]:
    """Column -> values (None where null), and the geometries."""
    meta, _, geometry, columns = pyogrio.raw.read(path, layer=name)
    values = {n: [_plain(v) for v in c] for n, c in zip(meta["fields"], columns, strict=True)}
    return values, shapely.from_wkb(geometry)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and np.isnan(value) else value
