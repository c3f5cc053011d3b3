"""What `predict` cannot use is one line before the first window, with the value, the rule and the remedy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from maps import layer
from perfect import SPEC, Disc, Perfect, plan_of, write_coordinates
from rasterio import Affine

from cabruca.errors import CabrucaError, ConfigError, DataError
from cabruca.facts import TrainingFacts
from cabruca.predict.begin import check_heads, make_request
from cabruca.predict.picture import open_picture
from cabruca.predict.plan import Request
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run
from cabruca.predict.scenes import check_output, scenes_of

HW = (120, 160)
PLACE = {"crs": "EPSG:32724", "transform": Affine(0.2, 0, 500_000, 0, -0.2, 8_360_000)}


@pytest.mark.parametrize(
    ("images", "options", "error", "said"),
    [
        ([], {}, ConfigError, "there is no image to predict; give at least one with --image"),
        (["a.tif", "./a.tif"], {}, ConfigError, "an image is given twice; give each once"),
        (["a.tif"], {"score": 1.5}, ConfigError, "--score 1.5 is not between 0 and 1"),
        (["a.tif"], {"score": float("nan")}, ConfigError, "--score nan is not between 0 and 1"),
        (["a.tif"], {"overlap": -1}, ConfigError, "--overlap -1 is negative; give 0 or more px"),
        (["a.tif"], {"aoi": "none.geojson"}, DataError, "--aoi 'none.geojson' is not a file; check the name"),
    ],
)
def test_a_request(images: list[str], options: dict[str, Any], error: type[CabrucaError], said: str) -> None:
    with pytest.raises(error) as caught:
        make_request(images, "map.gpkg", options)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("out", "said"), [("none/map.gpkg", "there is no folder 'none'; make it"), ("map.shp", r"\.gpkg, \.geojson")]
)
def test_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=said):
        check_output(Request(images=["a.tif"], out=Path(out)), resume=False)


@pytest.mark.parametrize("kind", ["complex64", "palette"])
def test_a_raster_of_other_pixels(tmp_path: Path, kind: str) -> None:
    dtype, said = (
        ("complex64", "has complex pixels") if kind == "complex64" else ("uint8", "colour numbers of a palette")
    )
    count = 3 if kind == "complex64" else 1
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": count, "dtype": dtype}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, **PLACE) as file:
        file.write(np.ones((count, 64, 64), dtype))
        if kind == "palette":
            file.write_colormap(1, {1: (255, 0, 0, 255)})
    spec = dataclasses.replace(SPEC, bands=tuple(range(1, count + 1)))
    with pytest.raises(DataError, match=said):
        open_picture(tmp_path / "a.tif", spec, None, match=True)


def area(path: Path, shape: Any, crs: str | None = "EPSG:32724") -> Path:
    stated = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    feature = {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shape)}
    path.write_text(json.dumps({"type": "FeatureCollection", **stated, "features": [feature]}))
    return path


def test_an_area_elsewhere_or_without_polygons(tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    far = area(tmp_path / "far.geojson", shapely.box(600_000, 8_000_000, 600_100, 8_000_100))
    with pytest.raises(DataError, match="does not touch any of the images; check its coordinates"):
        scenes_of(plan_of([image], tmp_path / "map.gpkg", aoi=far))
    line = area(tmp_path / "line.geojson", shapely.LineString([(500_000, 8_359_990), (500_010, 8_359_990)]))
    with pytest.raises(DataError, match="holds no polygon; draw at least one"):
        scenes_of(plan_of([image], tmp_path / "map.gpkg", aoi=line))


def test_an_area_that_touches_one_of_two_images(tmp_path: Path) -> None:
    """The other one is in the map with nothing looked at."""
    a = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    b = write_coordinates(
        tmp_path / "b.tif", HW, crs="EPSG:32724", transform=Affine(0.2, 0, 501_000, 0, -0.2, 8_360_000)
    )
    aoi = area(tmp_path / "aoi.geojson", shapely.box(500_000, 8_359_980, 500_032, 8_360_000))
    plan = plan_of([a, b], tmp_path / "map.gpkg", overlap=30, aoi=aoi)
    done = run(plan, InProcess(Perfect([Disc(40, 40, 10), Disc(110, 80, 14, 2)], HW)))
    assert done.crowns == 2
    plots, ground = layer(tmp_path / "map.gpkg", "plots")
    assert plots["n_crowns"] == [2, 0]
    assert plots["area_ha"] == [pytest.approx(32 * 20 / 1e4), 0.0]
    assert ground[1].is_empty


def test_rasters_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    for name, x in (("one", 500_000), ("two", 501_000)):
        (tmp_path / name).mkdir()
        write_coordinates(
            tmp_path / name / "a.tif", HW, crs="EPSG:32724", transform=Affine(0.2, 0, x, 0, -0.2, 8_360_000)
        )
    images = [tmp_path / name / "a.tif" for name in ("one", "two")]
    with pytest.raises(DataError, match="two images have the same file name, and --raster-out names rasters by it"):
        scenes_of(plan_of(images, tmp_path / "map.gpkg", raster_out=tmp_path / "rasters"))
    assert len(scenes_of(plan_of(images, tmp_path / "map.gpkg"))) == 2


def test_a_checkpoint_that_lacks_heads(tmp_path: Path) -> None:
    plan = plan_of([], tmp_path / "map.gpkg")
    with pytest.raises(ConfigError, match="has no instance head, so it finds no crowns"):
        check_heads(plan, ("semantic",))
    check_heads(plan, ("instance", "density"))
    assert plan.notes == [
        "the checkpoint has no semantic head: canopy and shade cover of the map stay empty (cabruca report "
        "takes them off the crowns)"
    ]
    boxes = dataclasses.replace(plan, facts=TrainingFacts(land_cover=False), notes=[])
    check_heads(boxes, ("instance", "semantic", "density"))
    (said,) = boxes.notes
    assert said.startswith("the checkpoint never saw land cover")
