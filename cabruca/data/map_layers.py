"""Layers of a map that predict wrote, and plots that somebody drew, on a plane in metres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.crs import CRS

from cabruca.data import vector
from cabruca.data.placing import Plane
from cabruca.errors import DataError
from cabruca.ground import metres_per_degree

ONE_FILE_A_LAYER = (".geojson", ".json", ".fgb")
"""Files of one layer: the others lie beside it, as `name.plots.geojson`."""


PLOTS = "plots"
"""Of several layers, the one that holds plots."""


@dataclass(frozen=True)
class MapLayer:
    """N features: `shapes` object `[N]`, `fields` name -> N values, `crs` WKT or None."""

    path: Path
    shapes: npt.NDArray[np.object_]
    fields: Mapping[str, Sequence[Any]]
    crs: str | None

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A field as float64 `[N]`, NaN where it is empty, or where the layer has no such field.

        Raises:
            DataError: it holds something else.
        """
        values = self.fields.get(name)
        if values is None:
            return np.full(len(self.shapes), np.nan)
        try:
            return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"field '{name}' of '{self.path}' holds something else than numbers ({error}); give the map as cabruca "
                "predict wrote it"
            ) from error

    def texts(self, name: str) -> list[str] | None:
        """A field as text; None where the layer has no such field."""
        values = self.fields.get(name)
        return None if values is None else ["" if v is None else str(v) for v in values]


def read_map(path: str | Path, name: str) -> MapLayer | None:
    """The layer `name` of a map; None where it has none (`crowns` it must have).

    Raises:
        DataError: not a plain file of a known kind, or damaged.
    """
    path = Path(path)
    if path.suffix.lower() in ONE_FILE_A_LAYER:
        own = path if name == "crowns" else path.with_name(f"{path.stem}.{name}{path.suffix}")
        return read_layer(own) if own == path or own.is_file() else None
    names = vector.layer_names(path)
    if name in names:
        return read_layer(path, name)
    if name == "crowns":
        raise DataError(f"'{path}' has no layer 'crowns' (it has {', '.join(names)}); give a map of cabruca predict")
    return None


def read_layer(path: str | Path, layer: str | None = None) -> MapLayer:
    """One layer, by default the only one, or the one named `crowns`. A CRS without a place on the ground ("undefined
    Cartesian") counts as none.

    Raises:
        DataError: not a plain file of a known kind, or damaged.
    """
    found = vector.read_layer(path, layer=layer, may_be_empty=True)
    crs = found.crs if found.crs is not None and (found.crs.is_projected or found.crs.is_geographic) else None
    return MapLayer(found.path, found.shapes, found.fields, None if crs is None else str(crs.to_wkt()))


def read_plots(path: str | Path) -> MapLayer:
    """Plots that somebody drew: the only layer of a file, or the one named `plots`.

    Raises:
        DataError: not a plain file of a known kind, or damaged; or of several layers and none is named so.
    """
    names = vector.layer_names(Path(path))
    if len(names) > 1 and PLOTS not in names:
        raise DataError(
            f"'{path}' has several layers ({', '.join(names)}) and none named '{PLOTS}'; rename the right one"
        )
    return read_layer(path, PLOTS if len(names) > 1 else None)


def plane_of(layer: MapLayer, gsd_m: float | None = None) -> Plane | None:
    """Metres for one unit of the layer's coordinates along x and y: by the length of a degree at its mean latitude, by
    the unit of its projection, and without a CRS by the ground sampling distance. None where that is unknown too."""
    if layer.crs is None:
        return None if gsd_m is None else Plane("", (gsd_m, gsd_m))
    crs = CRS.from_wkt(layer.crs)
    if crs.is_geographic:
        box = shapely.total_bounds(layer.shapes)
        return Plane(layer.crs, metres_per_degree(float(box[1] + box[3]) / 2 if np.isfinite(box).all() else 0.0))
    unit = float(crs.linear_units_factor[1])
    return Plane(layer.crs, (unit, unit))


def moved(layer: MapLayer, crs: str | None) -> npt.NDArray[np.object_]:
    """The layer's shapes in another CRS; as they are where one of both has none.

    Raises:
        DataError: a point has no place there.
    """
    if layer.crs is None or crs is None:
        return layer.shapes
    return vector.moved(layer.shapes, CRS.from_wkt(layer.crs), CRS.from_wkt(crs), what=f"'{layer.path}'")
