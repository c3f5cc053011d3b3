"""Maps as `cabruca predict` writes them, of stands whose numbers are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely

Tree = tuple[float, float, float, str]
"""x, y, diameter in metres, class."""

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}


def octagon(x: float, y: float, diameter: float) -> Any:
    """Of the same area as the disc."""
    r = diameter / 2 * np.sqrt(np.pi / (2 * np.sqrt(2)))
    angles = np.arange(8) * np.pi / 4
    return shapely.polygons(np.stack([x + r * np.cos(angles), y + r * np.sin(angles)], axis=1))


def write_layer(path: Path, name: str, shapes: Sequence[Any], fields: dict[str, Any], crs: str | None) -> None:
    suffix = path.suffix
    target = path if suffix == ".gpkg" or name == "crowns" else path.with_name(f"{path.stem}.{name}{suffix}")
    pyogrio.raw.write(
        target,
        shapely.to_wkb(np.asarray(shapes, dtype=object)),
        [np.asarray(v) for v in fields.values()],
        list(fields),
        layer=name,
        driver=DRIVERS[suffix],
        geometry_type="Polygon",
        crs=crs,
        append=suffix == ".gpkg" and target.exists(),
    )


def write_map(
    path: Path,
    trees: Sequence[Tree],
    *,
    side: float = 100.0,
    tile: float = 25.0,
    corner: tuple[float, float] = (500_000.0, 8_400_000.0),
    crs: str | None = "EPSG:31984",
    degrees: tuple[float, float] | None = None,
    canopy: float | None = 0.5,
    shade: float | None = 0.25,
    grid: bool = True,
    gsd_m: float = 0.1,
    score: str | None = None,
) -> Path:
    """A square of `side` metres with these trees (coordinates from its lower left corner), cut into windows of `tile`.

    Args:
        canopy, shade: cover of every window; None: unknown. degrees: metres of one degree along x and y; the corner is
            in degrees then.
    """
    scale = np.array(degrees or (1.0, 1.0))

    def placed(shape: Any) -> Any:
        return shapely.transform(shape, lambda xy: xy / scale + np.array(corner))

    names = [t[3] for t in trees]
    crowns = {
        "crown_id": np.arange(len(trees), dtype=np.int64),
        "class": np.array(names, dtype=object),
        "score": np.full(len(trees), 0.9),
        "area_m2": np.array([np.pi / 4 * t[2] ** 2 for t in trees]),
        "diameter_m": np.array([t[2] for t in trees]),
        "shape": np.array(["mask"] * len(trees), dtype=object),
        "image": np.array(["ortho.tif"] * len(trees), dtype=object),
    }
    write_layer(path, "crowns", [placed(octagon(*t[:3])) for t in trees], crowns, crs)
    plots = {
        "image": np.array(["ortho.tif"], dtype=object),
        **{"gsd_m": np.array([gsd_m]), "area_ha": np.array([side**2 / 10_000])},
        "checkpoint": np.array(["checkpoint_best.pth"], dtype=object),
    }
    plots |= {} if score is None else {"score": np.array([score], dtype=object)}
    write_layer(path, "plots", [placed(shapely.box(0, 0, side, side))], plots, crs)
    if grid:
        _write_grid(path, trees, side=side, tile=tile, placed=placed, crs=crs, canopy=canopy, shade=shade)
    return path


def _write_grid(
    path: Path, trees: Sequence[Tree], *, side: float, tile: float, placed: Any, crs: Any, canopy: Any, shade: Any
) -> None:
    corners = [(x, y) for x in np.arange(0, side, tile) for y in np.arange(0, side, tile)]
    n = len(corners)
    fields: dict[str, Any] = {
        "window": np.arange(n, dtype=np.int64),
        "known_ha": np.full(n, tile**2 / 10_000),
        "canopy_cover": np.full(n, np.nan if canopy is None else canopy),
        "shade_cover": np.full(n, np.nan if shade is None else shade),
    }
    for name in ("cacao_tree", "shade_tree"):
        fields[f"n_{name}"] = np.array(
            [sum(x <= t[0] < x + tile and y <= t[1] < y + tile and t[3] == name for t in trees) for x, y in corners],
            dtype=np.int64,
        )
    write_layer(path, "grid", [placed(shapely.box(x, y, x + tile, y + tile)) for x, y in corners], fields, crs)


def lattice(side: float = 100.0, spacing: float = 5.0) -> list[Tree]:
    """Cacao of 3 m on squares of `spacing`, half a spacing from the edge; each 25th is a shade tree of 8 m."""
    line = np.arange(spacing / 2, side, spacing)
    return [
        (float(x), float(y), 8.0, "shade_tree")
        if i % 5 == 2 and j % 5 == 2
        else (float(x), float(y), 3.0, "cacao_tree")
        for i, x in enumerate(line)
        for j, y in enumerate(line)
    ]
