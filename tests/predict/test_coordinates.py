"""Every crown lies where it was drawn, in map units: degrees, metres, rotated and south-up rasters, any resampling."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from maps import layer
from perfect import Disc, Perfect, plan_of, write_coordinates
from rasterio import Affine

from cabruca.facts import TrainingFacts
from cabruca.ground import metres_per_degree
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run

HW = (150, 210)
DISCS = [Disc(30, 40, 12), Disc(100.5, 70.25, 16.5, 2), Disc(180, 130, 9), Disc(206, 20, 14, 2), Disc(60, 120, 20)]

PLACES = {
    "metres": ("EPSG:32724", Affine(0.2, 0, 500_000, 0, -0.2, 8_360_000)),
    "degrees": ("EPSG:4326", Affine(2e-6, 0, -39.1, 0, -1.8e-6, -14.8)),
    "rotated": ("EPSG:32724", Affine(0.2, 0, 500_000, 0, -0.2, 8_360_000) * Affine.rotation(30)),
    "south_up": ("EPSG:32724", Affine(0.2, 0, 500_000, 0, 0.2, 8_360_000)),
    "feet": ("EPSG:2277", Affine(0.7, 0, 3_000_000, 0, -0.7, 10_000_000)),
    "nowhere": (None, None),
}


def predicted(folder: Path, place: str, **changes: Any) -> tuple[dict[str, list[Any]], Any]:
    crs, transform = PLACES[place]
    image, out = write_coordinates(folder / "a.tif", HW, crs=crs, transform=transform), folder / "a.gpkg"
    plan = dataclasses.replace(plan_of([image], out, tile_size=96, overlap=42), **changes)
    run(plan, InProcess(Perfect(DISCS, HW)))
    return layer(out)


@pytest.mark.parametrize("place", PLACES)
def test_crowns_lie_within_half_a_pixel(tmp_path: Path, place: str) -> None:
    values, shapes = predicted(tmp_path, place)
    transform = PLACES[place][1] or Affine.identity()
    to_px = ~transform
    px = sorted(to_px * xy for xy in zip(values["centroid_x"], values["centroid_y"], strict=True))
    inside = [(d, d.mask(*HW)) for d in DISCS]
    truth = sorted((float(np.nonzero(m)[1].mean() + 0.5), float(np.nonzero(m)[0].mean() + 0.5)) for _, m in inside)
    assert np.abs(np.array(px) - np.array(truth)).max() < 0.5
    assert len(values["class"]) == len(DISCS)
    for shape in shapes:  # the polygon lies there too, simplified as it is
        column, row = to_px * (shape.centroid.x, shape.centroid.y)
        assert min(math.hypot(column - x, row - y) for x, y in truth) < 0.5


@pytest.mark.parametrize("place", [p for p in PLACES if p != "nowhere"])
def test_areas_and_diameters_are_in_metres(tmp_path: Path, place: str) -> None:
    values, _ = predicted(tmp_path, place)
    t = PLACES[place][1]
    unit = {"metres": (1.0, 1.0), "rotated": (1.0, 1.0), "south_up": (1.0, 1.0), "feet": (1200 / 3937,) * 2}
    east, north = unit.get(place) or metres_per_degree(t.f + t.e * HW[0] / 2)
    pixel_m2 = abs(t.a * t.e - t.b * t.d) * east * north
    areas = sorted(int(d.mask(*HW).sum()) * pixel_m2 for d in DISCS)
    assert sorted(values["area_m2"]) == pytest.approx(areas, rel=1e-6)
    assert sorted(values["diameter_m"]) == pytest.approx([2 * math.sqrt(a / math.pi) for a in areas], rel=1e-6)
    plots, ground = layer(tmp_path / "a.gpkg", "plots")
    assert plots["area_ha"][0] == pytest.approx(HW[0] * HW[1] * pixel_m2 / 1e4, rel=1e-6)
    assert plots["n_crowns"] == [len(DISCS)]
    assert ground[0].area * east * north / 1e4 == pytest.approx(plots["area_ha"][0], rel=1e-6)


def test_without_a_place_metres_are_null(tmp_path: Path) -> None:
    values, _ = predicted(tmp_path, "nowhere")
    assert set(values["area_m2"]) == set(values["diameter_m"]) == {None}
    assert layer(tmp_path / "a.gpkg", "plots")[0]["area_ha"] == [None]


def test_the_grid_counts_every_crown_and_hectare_once(tmp_path: Path) -> None:
    predicted(tmp_path, "metres")
    grid, cells = layer(tmp_path / "a.gpkg", "grid")
    assert sum(grid["n_cacao_tree"]) == sum(d.label == 1 for d in DISCS)
    assert sum(grid["n_shade_tree"]) == sum(d.label == 2 for d in DISCS)
    assert sum(grid["known_ha"]) == pytest.approx(HW[0] * HW[1] * 0.04 / 1e4)
    assert shapely.union_all(cells).area == pytest.approx(sum(c.area for c in cells))
    land = np.zeros(HW, dtype=int)
    for d in DISCS:
        land[d.mask(*HW)] = d.label
    ha = np.array(grid["known_ha"])
    cover = float((np.array(grid["canopy_cover"]) * ha).sum() / ha.sum())
    assert cover == pytest.approx((land > 0).mean())
    shade = float((np.array(grid["shade_cover"]) * ha).sum() / ha.sum())
    assert shade == pytest.approx((land == 2).mean())
    assert set(layer(tmp_path / "a.gpkg")[0]["canopy_share"]) == {1.0}


@pytest.mark.parametrize("ratio", [0.5, 1.6, 3.0])
def test_a_resampled_raster_keeps_its_places(tmp_path: Path, ratio: float) -> None:
    """The network sees another grid (its pixel values are still coordinates of the raster), the map does not move."""
    crs, transform = PLACES["metres"]
    image, out = write_coordinates(tmp_path / "a.tif", HW, crs=crs, transform=transform), tmp_path / "a.gpkg"
    grid_hw = (round(HW[0] * ratio), round(HW[1] * ratio))
    discs = [Disc(d.x * ratio, d.y * ratio, d.radius * ratio, d.label) for d in DISCS]
    plan = plan_of([image], out, tile_size=256, overlap=130)
    plan = dataclasses.replace(plan, facts=TrainingFacts(gsd_m=0.2 / ratio))

    class Scaled(Perfect):
        """Reads places in px of the raster, which are px of the grid divided by the ratio."""

        def _see(self, image: Any, valid: Any, hw: tuple[int, int]) -> Any:
            image = (image + 0.5) * ratio - 0.5
            # the middle of the window: at a raster's edge, resampling has no neighbour to lean on
            return super()._see(image, middle_only(valid, hw), hw)

    run(plan, InProcess(Scaled(discs, grid_hw)))
    values, _ = layer(out)
    px = sorted((~transform) * xy for xy in zip(values["centroid_x"], values["centroid_y"], strict=True))
    masks = [d.mask(*grid_hw) for d in discs]
    truth = sorted(
        ((np.nonzero(m)[1].mean() + 0.5) * HW[1] / grid_hw[1], (np.nonzero(m)[0].mean() + 0.5) * HW[0] / grid_hw[0])
        for m in masks
    )
    assert np.abs(np.array(px) - np.array(truth)).max() < 0.5


def middle_only(valid: Any, hw: tuple[int, int]) -> Any:
    out = valid.clone()
    out[: hw[0] // 2] = False
    out[:, : hw[1] // 2] = False
    return out
