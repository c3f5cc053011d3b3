"""Rasters that are broken, empty, huge or of another kind: a clear error, or the right answer."""

from __future__ import annotations

import dataclasses
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
import shapely.geometry
from maps import layer
from perfect import SPEC, Disc, Perfect, plan_of, write_coordinates
from rasterio import Affine

from cabruca.errors import ConfigError, DataError
from cabruca.facts import TrainingFacts
from cabruca.predict.pool import InProcess
from cabruca.predict.run import Summary, run
from cabruca.predict.watcher import Silent

HW = (120, 160)
DISCS = [Disc(40, 40, 10), Disc(110, 80, 14, 2)]
PLACE = {"crs": "EPSG:32724", "transform": Affine(0.2, 0, 500_000, 0, -0.2, 8_360_000)}


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def predict(image: Path, *, watcher: Any = None, network: Any = None, facts: Any = None, **options: Any) -> Summary:
    plan = plan_of([image], image.parent / "map.gpkg", **{"overlap": 30, **options})
    if facts is not None:
        plan = dataclasses.replace(plan, facts=facts)
    return run(plan, InProcess(network or Perfect(DISCS, HW)), watcher)


def test_text_and_vrt_named_tif_are_refused(tmp_path: Path) -> None:
    for text in ("hello", "<VRTDataset rasterXSize='9' rasterYSize='9'></VRTDataset>"):
        (tmp_path / "a.tif").write_text(text)
        with pytest.raises(DataError, match="no GeoTIFF, PNG or JPEG"):
            predict(tmp_path / "a.tif")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    with pytest.raises(DataError, match="no GeoTIFF, PNG or JPEG"):
        predict(tmp_path / "a.tif")


def test_too_few_bands_are_named(tmp_path: Path) -> None:
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", height=9, width=9, count=1, dtype="float32") as out:
        out.write(np.ones((1, 9, 9), np.float32))
    with pytest.raises(DataError, match=r"has 1 band\(s\) and the checkpoint was trained on bands \[1, 2, 3\]"):
        predict(tmp_path / "a.tif")


def test_another_pixel_type_is_named(tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW)
    plan = plan_of([image], tmp_path / "map.gpkg")
    plan = dataclasses.replace(plan, spec=dataclasses.replace(SPEC, scale=255.0, dtype="uint8"))
    with pytest.raises(DataError, match="has float32 pixels and the checkpoint was trained on uint8"):
        run(plan, InProcess(Perfect(DISCS, HW)))


def test_a_truncated_file_is_an_error_and_nothing_is_published(tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW)
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cannot be (read|opened)"):
        predict(image)
    assert not (tmp_path / "map.gpkg").exists()


def test_nodata_everywhere_is_a_map_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": 90, "width": 90, "count": 3, "dtype": "float32", "nodata": -1, **PLACE}
    with rasterio.open(path, "w", **profile) as out:
        out.write(np.full((3, 90, 90), -1, np.float32))
    told = Listening()
    assert predict(path, watcher=told).crowns == 0
    assert any("nothing but NoData" in line for line in told.said)
    plots, ground = layer(tmp_path / "map.gpkg", "plots")
    assert plots["area_ha"] == [0.0]
    assert ground[0].is_empty
    assert layer(tmp_path / "map.gpkg", "grid")[0]["window"] == []


def test_nodata_is_not_ground(tmp_path: Path) -> None:
    """The left half is unknown: area, outline and cells leave it out."""
    image = write_coordinates(tmp_path / "a.tif", HW, nodata=-1, **PLACE)
    with rasterio.open(image, "r+") as out:
        pixels = out.read()
        pixels[:, :, :80] = -1
        out.write(pixels)
    predict(image)
    plots, ground = layer(tmp_path / "map.gpkg", "plots")
    assert plots["area_ha"][0] == pytest.approx(80 * 120 * 0.04 / 1e4)
    assert ground[0].bounds == pytest.approx((500_016, 8_359_976, 500_032, 8_360_000))
    assert sum(layer(tmp_path / "map.gpkg", "grid")[0]["known_ha"]) == pytest.approx(plots["area_ha"][0])


def test_a_sparse_raster_of_ten_gigapixels_is_looked_through_in_bounded_memory(tmp_path: Path) -> None:
    """Of 100,000 x 100,000 px one block was ever written."""
    path, side = tmp_path / "a.tif", 100_000
    profile = {"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": "float32", **PLACE}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "SPARSE_OK": True, "BIGTIFF": "YES"}
    with rasterio.open(path, "w", **profile, **tiles) as out:
        ys, xs = np.mgrid[51_200:51_712, 51_200:51_712].astype(np.float32)
        window = rasterio.windows.Window(51_200, 51_200, 512, 512)
        out.write(np.stack([xs - 51_200, ys - 51_200, xs * 0]), window=window)
    discs, seen = [Disc(100, 100, 20), Disc(300, 410, 30, 2)], (512, 512)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    done = predict(path, network=Perfect(discs, seen), tile_size=512, overlap=64)
    assert done.crowns == 2
    assert time.monotonic() - began < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    x, y = (layer(tmp_path / "map.gpkg")[0][k] for k in ("centroid_x", "centroid_y"))
    # what was never written is no ground
    assert layer(tmp_path / "map.gpkg", "plots")[0]["area_ha"][0] == pytest.approx(512**2 * 0.04 / 1e4)
    truth = sorted((500_000 + (51_200 + d.x) * 0.2, 8_360_000 - (51_200 + d.y) * 0.2) for d in discs)
    assert np.abs(np.array(sorted(zip(x, y, strict=True))) - truth).max() < 0.1


@pytest.mark.parametrize("ratio", [0.2, 5.0])
def test_another_scale_is_refused_with_the_remedy(tmp_path: Path, ratio: float) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    with pytest.raises(DataError, match=r"5\.0 times (finer|coarser).*--gsd native"):
        predict(image, facts=TrainingFacts(gsd_m=0.2 * ratio))
    predict(image, facts=TrainingFacts(gsd_m=0.2 * ratio), gsd="native")


def test_a_raster_without_scale_says_so(tmp_path: Path) -> None:
    told = Listening()
    predict(write_coordinates(tmp_path / "a.tif", HW), watcher=told, facts=TrainingFacts(gsd_m=0.1))
    assert any("has no scale and is read as it is" in line for line in told.said)


def test_an_overlap_below_large_crowns_says_so(tmp_path: Path) -> None:
    told, image = Listening(), write_coordinates(tmp_path / "a.tif", HW)
    predict(image, watcher=told, facts=TrainingFacts(crown_diameter_p95_px=45.0), overlap=20)
    assert any("overlap 20 px is smaller than large crowns" in line and "--overlap 57" in line for line in told.said)


def test_the_overlap_follows_the_crowns(tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    plan = dataclasses.replace(plan_of([image], tmp_path / "map.gpkg"), facts=TrainingFacts(0.2, 24.0, 4.8))
    from cabruca.predict.scenes import scenes_of

    assert [s.grid.overlap for s in scenes_of(plan)] == [30]


def test_an_overlap_as_large_as_the_window_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overlap 96 px is not smaller than the window of 96 px"):
        predict(write_coordinates(tmp_path / "a.tif", HW), overlap=96)


def test_rasters_of_two_systems_do_not_share_a_map(tmp_path: Path) -> None:
    a = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    b = write_coordinates(tmp_path / "b.tif", HW, **{**PLACE, "crs": "EPSG:32723"})
    with pytest.raises(DataError, match="different coordinate reference systems"):
        run(plan_of([a, b], tmp_path / "map.gpkg"), InProcess(Perfect(DISCS, HW)))


@pytest.mark.parametrize("ending", [".geojson", ".fgb"])
def test_other_formats_lie_beside_one_another(tmp_path: Path, ending: str) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    for out in ("one.gpkg", f"two{ending}"):
        run(plan_of([image], tmp_path / out, overlap=30), InProcess(Perfect(DISCS, HW)))
    for name, other in (("crowns", f"two{ending}"), ("plots", f"two.plots{ending}"), ("grid", f"two.grid{ending}")):
        values, shapes = layer(tmp_path / "one.gpkg", name)
        again, same = layer(tmp_path / other, None)
        order = np.lexsort(np.array([[g.bounds[0] for g in same], [g.bounds[1] for g in same]]))
        own = np.lexsort(np.array([[g.bounds[0] for g in shapes], [g.bounds[1] for g in shapes]]))
        for column, wanted in values.items():
            for k, m in zip(own, order, strict=True):
                a, b = wanted[k], again[column][m]
                if column in ("score", "settings") and name == "plots":  # GeoJSON has them as objects
                    a, b = json.loads(a), json.loads(b)
                assert b == (pytest.approx(a, rel=1e-12) if isinstance(a, float) else a)
        # GeoJSON keeps the coordinates' first digits
        assert max(a.hausdorff_distance(b) for a, b in zip(shapes[own], same[order], strict=True)) < 1e-3


def test_only_the_area_asked_for_is_counted(tmp_path: Path) -> None:
    """Given in degrees, over a raster in metres."""
    image = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    left, bottom, right, top = 500_000, 8_359_976, 500_014, 8_360_000
    lon_lat = rasterio.warp.transform_geom(
        "EPSG:32724", "EPSG:4326", shapely.geometry.mapping(shapely.box(left, bottom, right, top))
    )
    feature = {"type": "Feature", "properties": {}, "geometry": lon_lat}
    (tmp_path / "area.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    predict(image, aoi=tmp_path / "area.geojson")
    values, _ = layer(tmp_path / "map.gpkg")
    plots, ground = layer(tmp_path / "map.gpkg", "plots")
    assert values["class"] == ["cacao_tree"]
    assert plots["area_ha"][0] == pytest.approx(14 * 24 / 1e4, rel=0.02)
    assert ground[0].area == pytest.approx(14 * 24, rel=1e-3)


def test_the_rasters_lie_on_the_grid(tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    done = predict(image, raster_out=tmp_path / "rasters")
    semantic, density, shade = (rasterio.open(p) for p in done.rasters)
    land = np.zeros(HW, dtype=np.uint8)
    for d in DISCS:
        land[d.mask(*HW)] = d.label
    assert np.array_equal(semantic.read(1), land)
    assert semantic.transform == PLACE["transform"]
    assert semantic.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    assert density.shape == (4, 5)
    assert np.allclose(density.read(1), 0.25)
    assert density.transform.a == pytest.approx(6.4)
    cells = np.array(
        [[(land[r : r + 32, c : c + 32] == 2).mean() for c in range(0, 160, 32)] for r in range(0, 120, 32)]
    )
    assert np.allclose(shade.read(1), cells, atol=1e-6)


@pytest.mark.parametrize("crs", [None, "+proj=tmerc +lat_0=0 +lon_0=-39 +k=0.9996 +x_0=500000 +ellps=GRS80 +units=m"])
def test_geojson_needs_a_crs_that_it_can_state(tmp_path: Path, crs: str | None) -> None:
    """It would be read as degrees."""
    image = write_coordinates(tmp_path / "a.tif", HW, **({**PLACE, "crs": crs} if crs else {}))
    with pytest.raises(DataError, match=r"no crs with a code .*let --out end in \.gpkg or \.fgb"):
        run(plan_of([image], tmp_path / "map.geojson", overlap=30), InProcess(Perfect(DISCS, HW)))
    assert run(plan_of([image], tmp_path / "map.fgb", overlap=30), InProcess(Perfect(DISCS, HW))).finished


def test_a_raster_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    image = write_coordinates(tmp_path / "a.tif", HW, **PLACE)
    (tmp_path / "rasters" / "a.semantic.tif" / "taken").mkdir(parents=True)
    with pytest.raises(DataError, match=r"a.semantic.tif' cannot be written \(.*\); free disk space"):
        predict(image, raster_out=tmp_path / "rasters")
