"""Predictions: GeoPackages that `cabruca predict` has written, and the pictures that they lie over.

A GeoPackage has the layers `crowns` (polygons with class, score, area, diameter), `plots` (a row a picture) and `grid`.
Only files that are GeoPackages by content are opened, by GDAL's driver for them and no other; pictures are read through
`data/raster.py`, which has its own short list.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cabruca.data import raster
from cabruca.errors import DataError
from cabruca.monitor.places import children, inside

DRIVERS = ("GPKG",)
"""GDAL's drivers that may open a prediction."""

MOST_FILES, DEEPEST = 500, 6
MOST_CROWNS = 200_000
"""Read at most; a prediction of more is a job for a GIS."""

_SQLITE, _IDS = b"SQLite format 3\0", (b"GPKG", b"GP10", b"GP11")

Bools = npt.NDArray[np.bool_]
"""`[N]` of crowns, or `[h, w]` of pixels."""


@dataclass(frozen=True)
class Crowns:
    """The crowns of a prediction.

    Attributes:
        geometries: `[N]` shapely polygons in `crs` (of pictures without one: in their px).
        columns: name -> `[N]` values. plots: one mapping a picture. crs: as GDAL names it, or None.
        left_out: crowns of the file that were not read, of more than `MOST_CROWNS`.
    """

    geometries: npt.NDArray[np.object_]
    columns: dict[str, npt.NDArray[Any]]
    plots: list[dict[str, Any]]
    crs: str | None
    left_out: int = 0

    @property
    def classes(self) -> list[str]:
        """Names of the classes, the most frequent first."""
        names, counts = np.unique(self.columns["class"].astype(str), return_counts=True)
        return [str(name) for name in names[np.argsort(-counts, kind="stable")]]

    @property
    def images(self) -> list[str]:
        """Names of the pictures, in order of appearance."""
        listed = [str(plot["image"]) for plot in self.plots if plot.get("image")]
        return list(dict.fromkeys([*listed, *(str(name) for name in self.columns["image"])]))

    def where(self, image: str, classes: Sequence[str], least_score: float) -> Bools:
        """`[N]` crowns of the picture, of one of the classes, found with at least that score."""
        score = self.columns["score"].astype(float)
        own = (self.columns["image"].astype(str) == image) & np.isin(self.columns["class"].astype(str), list(classes))
        kept: Bools = own & ~(score < least_score)
        return kept


def predictions_of(outputs: Path) -> list[str]:
    """Names of the GeoPackages below the folder, the newest first; links are not followed."""
    found: list[tuple[float, str]] = []
    waiting = [(outputs, 0)]
    while waiting and len(found) < MOST_FILES:
        folder, depth = waiting.pop(0)
        try:
            with os.scandir(folder) as entries:
                files = [entry for entry in entries if entry.name.endswith(".gpkg") and not entry.name.startswith(".")]
                own = [entry for entry in files if entry.is_file(follow_symlinks=False)]
                found += [(e.stat().st_mtime, Path(e.path).relative_to(outputs).as_posix()) for e in own]
        except OSError:
            continue
        if depth < DEEPEST:
            waiting += [(child, depth + 1) for child in children(folder) if child.name not in ("checkpoints", ".ray")]
    return [name for _, name in sorted(found, reverse=True)]


def read_prediction(outputs: Path, name: str) -> Crowns:
    """The prediction of that name below the folder.

    Raises:
        RunError: the name leaves the folder. DataError: it is no GeoPackage of `cabruca predict`.
    """
    import pyogrio

    path = inside(outputs, name)
    _check(path)
    try:
        info = pyogrio.read_info(path, layer="crowns")
        if info["driver"] not in DRIVERS:
            raise DataError(f"{path} was opened as {info['driver']}, and only {', '.join(DRIVERS)} is; make it anew")
        meta, _, shapes, fields = pyogrio.raw.read(path, layer="crowns", max_features=MOST_CROWNS)
        plots = _plots(pyogrio, path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as a prediction ({line}); make it anew with cabruca predict") from error
    columns = {str(key): values for key, values in zip(meta["fields"], fields, strict=True)}
    missing = [key for key in ("class", "score", "image") if key not in columns]
    if missing:
        raise DataError(f"{path}: layer crowns has no {', '.join(missing)}; give a file that cabruca predict wrote")
    found = _polygons(shapes)
    return Crowns(found, columns, plots, meta.get("crs"), max(0, int(info["features"]) - len(found)))


def _polygons(shapes: npt.NDArray[np.object_] | None) -> npt.NDArray[np.object_]:
    import shapely

    if shapes is None:
        return np.zeros(0, dtype=object)
    found: npt.NDArray[np.object_] = shapely.from_wkb(shapes, on_invalid="ignore")
    return found


def _plots(pyogrio: Any, path: Path) -> list[dict[str, Any]]:
    """Rows of the layer `plots`; none where there is no such layer."""
    layers = [str(name) for name, _ in pyogrio.list_layers(path)]
    if "plots" not in layers:
        return []
    meta, _, _, fields = pyogrio.raw.read(path, layer="plots", read_geometry=False)
    names = [str(name) for name in meta["fields"]]
    return [dict(zip(names, map(_plain, row), strict=True)) for row in zip(*fields, strict=True)]


def _plain(value: Any) -> Any:
    """A numpy scalar as Python's; NaN as None."""
    out = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(out, float) and math.isnan(out) else out


def _check(path: Path) -> None:
    """Raises:
    DataError: the file is no GeoPackage by its first bytes, whatever its name.
    """
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); choose another prediction") from error
    if not head.startswith(_SQLITE) or head[68:72] not in _IDS:
        raise DataError(f"{path} begins with {head[:8]!r}, so it is no GeoPackage, whatever its name")


def find_picture(image: str, folders: Sequence[Path]) -> Path | None:
    """The file of a picture below one of the folders; None where it is in none.

    Of an absolute path the name alone counts: a GeoPackage of somebody else opens no file elsewhere.
    """
    path = Path(image)
    names = dict.fromkeys((path.name,) if path.is_absolute() else (image, path.name))
    for folder in folders:
        for name in names:
            try:
                return raster.resolve(folder, name, "picture")
            except DataError:
                continue
    return None


@dataclass(frozen=True)
class Overview:
    """A picture, small.

    Attributes:
        rgb: `[h, w, 3]` uint8. height, width: of the whole picture, px. affine: from its px to its CRS, or None.
    """

    rgb: npt.NDArray[np.uint8]
    height: int
    width: int
    affine: tuple[float, float, float, float, float, float] | None


def overview(path: Path, side_px: int = 1_400) -> Overview:
    """The picture with its longer side at most `side_px`, stretched between its 2nd and 98th percentile.

    Raises:
        DataError: it cannot be opened or read.
    """
    facts = raster.info(path)
    scale = min(1.0, side_px / max(facts.height, facts.width))
    shape = max(1, round(facts.height * scale)), max(1, round(facts.width * scale))
    bands = (1, 2, 3) if facts.count >= 3 else (1,)
    pixels, known = raster.read(path, bands, (0, 0, shape[1], shape[0]), grid_hw=shape)
    rgb = np.stack([_stretched(pixels[i % len(bands)], known) for i in range(3)], axis=-1)
    rgb[~known] = 255
    return Overview(rgb, facts.height, facts.width, facts.affine)


def _stretched(band: npt.NDArray[Any], known: Bools) -> npt.NDArray[np.uint8]:
    values = band[known]
    if band.dtype == np.uint8 or not len(values):
        return band.astype(np.uint8)
    low, high = np.percentile(values.astype(np.float64), (2, 98))
    scaled = (band.astype(np.float64) - low) / max(high - low, 1e-12)
    out: npt.NDArray[np.uint8] = (255 * np.clip(np.nan_to_num(scaled), 0, 1)).astype(np.uint8)
    return out


def rings_px(
    geometries: npt.NDArray[np.object_], picture: Overview | None
) -> tuple[list[npt.NDArray[np.float64]], float]:
    """Outer rings, `[points, 2]` each, in px of the picture (x right, y down); and one px in the ring's own units.

    Without a picture, or where it has no CRS, coordinates stay as they are.
    """
    import shapely

    to_px = None if picture is None or picture.affine is None else np.linalg.inv(_matrix(picture.affine))
    rings = []
    for shape in geometries:
        parts = getattr(shape, "geoms", [shape]) if shape is not None else []
        for part in parts:
            if getattr(part, "exterior", None) is None or part.is_empty:
                continue
            xy = shapely.get_coordinates(part.exterior)
            rings.append(xy if to_px is None else xy @ to_px[:2, :2].T + to_px[:2, 2])
    size = 1.0 if picture is None else max(picture.height / picture.rgb.shape[0], 1.0)
    return rings, size


def _matrix(affine: Sequence[float]) -> npt.NDArray[np.float64]:
    a, b, c, d, e, f = affine
    return np.array([[a, b, c], [d, e, f], [0.0, 0.0, 1.0]])
