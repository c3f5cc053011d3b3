"""Where pictures lie: projected and geographic rasters, feet, resampling, no CRS."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import SPEC
from drawn_data import CLASSES, write_raster
from rasterio.transform import Affine, from_origin

from cabruca.data import raster
from cabruca.data.dataset import EvaluationWindows
from cabruca.ground import Ground, metres_per_degree
from cabruca.structures import InputSpec

SIDE = 64


def windows(folder: Path, pictures: list[dict[str, Any]], **changes: Any) -> EvaluationWindows:
    """Pictures of 64 px; each entry is a raster profile, and `gsd_m` for the annotation file."""
    images = []
    for k, profile in enumerate(pictures, 1):
        own = {key: v for key, v in profile.items() if key != "gsd_m"}
        write_raster(folder / f"{k}.tif", np.zeros((3, SIDE, SIDE), np.uint8), **own)
        row = {"id": k, "file_name": f"{k}.tif", "height": SIDE, "width": SIDE}
        images.append(row | ({"gsd_m": profile["gsd_m"]} if "gsd_m" in profile else {}))
    file = folder / "truth.json"
    file.write_text(json.dumps({"images": images, "annotations": [], "categories": CLASSES}))
    spec = InputSpec.from_dict({**SPEC.to_dict(), **changes})
    return EvaluationWindows(folder, file, spec, max_side_px=32, overlap=8, min_visible_share=0.3, cache_mb=16)


def corner(ground: Ground | None, x: float = 0, y: float = 0) -> list[float]:
    assert ground is not None
    return ground.to_plane(np.array([[x, y]], dtype=np.float64))[0].tolist()


def test_windows_of_a_projected_raster_lie_in_its_metres(tmp_path: Path) -> None:
    w = windows(tmp_path, [{"crs": "EPSG:31984", "transform": from_origin(478000, 8363000, 0.1, 0.1)}])
    last = w.get(len(w) - 1)
    assert last.ground is not None
    assert last.ground.in_metres
    assert last.ground.offset_xy_px == (32, 32)
    assert last.ground.picture_hw_px == (SIDE, SIDE)
    assert corner(last.ground) == pytest.approx([478003.2, 8362996.8])
    assert corner(last.ground, 10, 20) == pytest.approx([478004.2, 8362994.8])
    assert last.ground.pixel_area == pytest.approx(0.01)


def test_a_resampled_raster_stays_where_it_was(tmp_path: Path) -> None:
    profile = {"crs": "EPSG:31984", "transform": from_origin(478000, 8363000, 0.1, 0.1)}
    w = windows(tmp_path, [profile], gsd_m=0.2)
    ground = w.get(0).ground
    assert corner(ground, 32, 32) == pytest.approx([478006.4, 8362993.6])  # the picture's lower right corner


def test_pictures_of_one_crs_share_a_plane(tmp_path: Path) -> None:
    one = {"crs": "EPSG:31984", "transform": from_origin(478000, 8363000, 0.1, 0.1)}
    other = {"crs": "EPSG:31984", "transform": from_origin(478006.4, 8363000, 0.1, 0.1)}
    third = {"crs": "EPSG:31983", "transform": from_origin(478006.4, 8363000, 0.1, 0.1)}
    grounds = windows(tmp_path, [one, other, third]).grounds
    assert grounds[0].plane == grounds[1].plane != grounds[2].plane
    assert corner(grounds[0], SIDE, 0) == pytest.approx(corner(grounds[1], 0, 0))


def test_degrees_become_metres_on_a_plane_that_neighbours_share(tmp_path: Path) -> None:
    east, north = metres_per_degree(-14.5)
    assert (east, north) == pytest.approx((107_800, 110_640), rel=1e-3)  # at the cacao region's latitude
    step = 1e-6
    one = {"crs": "EPSG:4326", "transform": from_origin(-39.0, -14.5, step, step)}
    other = {"crs": "EPSG:4326", "transform": from_origin(-39.0 + SIDE * step, -14.5 + 0.01, step, step)}
    far = {"crs": "EPSG:4326", "transform": from_origin(-39.0, 29.0, step, step)}
    w = windows(tmp_path, [one, other, far])
    a, b, c = w.grounds
    assert a.plane == b.plane != c.plane
    assert np.subtract(corner(b), corner(a)) == pytest.approx([SIDE * step * east, 0.01 * north], rel=1e-4)
    assert a.pixel_side == pytest.approx(w.get(0).gsd_m, rel=1e-4)
    assert c.pixel_side == pytest.approx(np.sqrt(np.prod(metres_per_degree(29.0))) * step, rel=1e-6)


def test_feet_become_metres(tmp_path: Path) -> None:
    profile = {"crs": "EPSG:2263", "transform": from_origin(1000, 2000, 1, 1)}  # US survey feet
    ground = windows(tmp_path, [profile]).grounds[0]
    assert ground.pixel_side == pytest.approx(0.3048006)
    assert corner(ground) == pytest.approx([304.8006, 609.6012])


def test_a_turned_raster_keeps_circles_round(tmp_path: Path) -> None:
    turned = Affine.translation(1000, 2000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    ground = windows(tmp_path, [{"crs": "EPSG:31984", "transform": turned}]).grounds[0]
    box = ground.boxes_to_plane(np.array([[10.0, 10.0, 30.0, 30.0]]))[0]
    assert box[2:] - box[:2] == pytest.approx([10.0, 10.0])
    assert (box[:2] + box[2:]) / 2 == pytest.approx(corner(ground, 20, 20))
    assert ground.pixel_area == pytest.approx(0.25)


def test_pictures_without_a_crs_are_planes_of_their_own(tmp_path: Path) -> None:
    a, b = windows(tmp_path, [{"gsd_m": 0.05}, {}]).grounds
    assert a.plane != b.plane
    assert (a.in_metres, b.in_metres) == (True, False)
    assert (a.pixel_side, b.pixel_side) == (0.05, 1.0)
    assert corner(a, 20, 40) == pytest.approx([1.0, 2.0])


@pytest.mark.parametrize("changes", [{}, {"gsd_m": 0.2}])
def test_one_scale_where_the_file_and_the_raster_differ(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    """The file says 0.05 m, the raster 0.1 m: diameters, ground and the sample's own scale follow the file."""
    caplog.set_level(logging.WARNING, "cabruca")
    profile = {"crs": "EPSG:31984", "transform": from_origin(478000, 8363000, 0.1, 0.1)}
    w = windows(tmp_path, [{**profile, "gsd_m": 0.05}, {**profile, "gsd_m": 0.101}], **changes)
    sample = w.get(0)
    assert sample.ground is not None
    assert sample.gsd_m is not None
    assert sample.ground.pixel_side == pytest.approx(sample.gsd_m, rel=0.02)
    assert corner(sample.ground) == pytest.approx([478000.0, 8363000.0])
    (said,) = [r.getMessage() for r in caplog.records]
    assert "1 of 2 pictures" in said
    assert "image 1: 0.05 m stated, 0.1 m in its raster" in said


def test_one_crs_in_two_writings_is_one_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second raster's CRS under another name, as other programs write it."""
    read = raster.info

    def written(path: Path) -> raster.RasterInfo:
        found = read(path)
        assert found.crs is not None
        other = found.crs.replace("SIRGAS 2000 / UTM zone 24S", "SIRGAS_2000_UTM_Zone_24S")
        assert other != found.crs
        return found if path.name == "1.tif" else dataclasses.replace(found, crs=other)

    monkeypatch.setattr(raster, "info", written)
    places = [from_origin(478000 + x, 8363000, 0.1, 0.1) for x in (0, 6.4)]
    grounds = windows(tmp_path, [{"crs": "EPSG:31984", "transform": t} for t in places]).grounds
    assert grounds[0].plane == grounds[1].plane
