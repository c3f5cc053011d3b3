"""`cabruca report`: which layer holds plots, the image behind the crowns, and that two reports of a map are one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from drawn_data import write_raster
from drawn_map import lattice, write_layer, write_map

from cabruca.errors import DataError
from cabruca.predict.backdrop import backdrop
from cabruca.predict.farm_map import read_farm
from cabruca.predict.report import report

TREES = lattice()


def test_of_several_layers_the_plots_are_the_one_named_so(tmp_path: Path) -> None:
    """A map's own, too: crowns are no plots."""
    path = write_map(tmp_path / "farm.gpkg", TREES)
    (plot,) = report(path, str(path), tmp_path / "r.html").plots
    assert (plot.values["cacao_trees"], plot.values["shade_trees"]) == (384, 16)
    square = [shapely.box(500_000, 8_400_000, 500_100, 8_400_100)]
    for name in ("paths", "fields"):
        write_layer(tmp_path / "p.gpkg", name, square, {"id": np.array([7])}, "EPSG:31984")
    with pytest.raises(DataError, match=r"several layers \(paths, fields\) and none named 'plots'; rename"):
        report(path, str(tmp_path / "p.gpkg"), tmp_path / "r.html")


def test_the_same_map_gives_the_same_intervals(tmp_path: Path) -> None:
    """The bootstrap is seeded; unequal windows, so that draws matter."""
    rng = np.random.default_rng(0)
    trees = [(float(x), float(y), 3.0, "cacao_tree") for x, y in rng.uniform(0, 100, (60, 2))]
    path = write_map(tmp_path / "farm.gpkg", trees)
    first, again = (report(path, "grid:1ha", tmp_path / f"{k}.html") for k in range(2))
    low, high = first.whole.intervals["cacao_per_ha"]
    assert low < 60 < high
    assert first.whole.intervals["cacao_per_ha"] == again.whole.intervals["cacao_per_ha"] == (low, high)
    assert first.files[1].read_bytes() == again.files[1].read_bytes()


def test_the_image_lies_behind_the_crowns(tmp_path: Path) -> None:
    """NoData is white, 16 bits are stretched; an image of another place's system is refused."""
    path = write_map(tmp_path / "farm.gpkg", TREES)
    pixels = np.full((3, 100, 100), 20_000, np.uint16)
    pixels[0, :, 50:] = 40_000
    pixels[:, :10] = 0
    place = rasterio.Affine(1, 0, 500_000, 0, -1, 8_400_100)
    image = write_raster(tmp_path / "a.tif", pixels, crs="EPSG:31984", transform=place, nodata=0)
    behind = backdrop(image, read_farm(path).plane)
    assert behind.extent_m == (500_000, 500_100, 8_400_000, 8_400_100)
    assert (behind.rgb[:10] == 255).all()
    assert (behind.rgb[20, 10, 0], behind.rgb[20, 90, 0]) == (0, 255)
    plain, drawn = (report(path, "grid:1ha", tmp_path / f"{k}.html", image=i) for k, i in ((0, None), (1, image)))
    assert plain.files[0].read_text() != drawn.files[0].read_text()
    other = write_raster(tmp_path / "b.tif", pixels, crs="EPSG:32723", transform=place)
    with pytest.raises(DataError, match="has another crs than the map; give the image that was predicted on"):
        report(path, "grid:1ha", tmp_path / "r.html", image=other)
    with pytest.raises(DataError, match="has no crs, so it cannot lie behind the map"):
        report(path, "grid:1ha", tmp_path / "r.html", image=write_raster(tmp_path / "c.tif", pixels))


def test_json_of_any_name_never_reaches_gdal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of its drivers answer to JSON, and some fetch what it names."""
    path = write_map(tmp_path / "farm.gpkg", TREES)
    shape = shapely.geometry.mapping(shapely.box(-39, -14, -38, -13))
    feature = {"type": "Feature", "properties": {}, "geometry": shape}
    text = json.dumps({"type": "FeatureCollection", "features": [feature]})
    for name in ("p.gpkg", "p.geojson"):
        (tmp_path / name).write_text(text)
    asked: list[str] = []
    real = pyogrio.list_layers
    monkeypatch.setattr(pyogrio, "list_layers", lambda p, *a, **k: (asked.append(Path(p).name), real(p, *a, **k))[1])
    for name in ("p.gpkg", "p.geojson"):
        with pytest.raises(DataError, match=r"no plot of .* lies on the ground"):
            report(path, str(tmp_path / name), tmp_path / "r.html")
    with pytest.raises(DataError, match="has no layer 'crowns'"):
        read_farm(tmp_path / "p.gpkg")
    assert set(asked) == {"farm.gpkg"}


def test_a_map_whose_windows_know_no_cover_has_no_empty_maps_of_it(tmp_path: Path) -> None:
    """Of a network that learnt from boxes alone."""
    known, unknown = (
        write_map(tmp_path / f"{name}.gpkg", TREES, canopy=cover, shade=cover)
        for name, cover in (("known", 0.5), ("unknown", None))
    )
    pages = [report(path, "grid:1ha", tmp_path / f"{path.stem}.html").files[0].read_text() for path in (known, unknown)]
    assert ["canopy and shade cover by window" in page for page in pages] == [True, False]
