"""What is asked for and what the checkpoint knows become a plan: thresholds, overlaps, and the raster they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from drawn import SPEC, light_config
from maps import layer
from perfect import Disc, Perfect, plan_of, write_coordinates
from rasterio import Affine

from cabruca import operating_point
from cabruca.errors import DataError
from cabruca.evaluation import Trained
from cabruca.facts import TrainingFacts
from cabruca.model.build import build_model
from cabruca.operating_point import OperatingPoint
from cabruca.predict.network import TrainedNetwork
from cabruca.predict.picture import open_picture
from cabruca.predict.plan import Plan, Request, make_plan
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run
from cabruca.runtime import Runtime
from cabruca.train import checkpoint

POINT = OperatingPoint({"cacao_tree": 0.31}, "count", nms_iou=0.4, merge_iou=0.6)


def planned(folder: Path, point: OperatingPoint | None, **asked: Any) -> Plan:
    path = folder / "checkpoint_best.pth"
    checkpoint.write(path, {"model": {"w": torch.ones(9)}, "epoch": 3, "step": 30}, metric=0.5)
    if point is not None:
        operating_point.write(path, point)
    request = Request(images=["a.tif"], out=folder / "map.gpkg", **asked)
    return make_plan(request, light_config(), SPEC, TrainingFacts(), checkpoint=path)


def test_auto_takes_the_operating_point_and_says_so(tmp_path: Path) -> None:
    """A class that had no truth there has no score: it keeps the one that it was trained with."""
    trained = light_config().validation.score_threshold
    plan = planned(tmp_path, POINT)
    assert plan.score == {"cacao_tree": 0.31, "shade_tree": trained}
    assert (plan.nms_iou, plan.merge_iou, plan.merge_containment) == (0.4, 0.6, 0.7)
    assert plan.notes == [f"scores of the checkpoint's operating point (best count): cacao_tree 0.31, "
                          f"shade_tree {trained:.3g}"]  # fmt: skip


def test_auto_without_a_point_is_as_trained_and_says_so(tmp_path: Path) -> None:
    trained = light_config().validation.score_threshold
    plan = planned(tmp_path, None)
    assert set(plan.score.values()) == {trained}
    assert plan.nms_iou is None
    (said,) = plan.notes
    assert "has no operating point" in said
    assert "cabruca evaluate --tune-thresholds" in said


def test_a_score_that_is_given_is_of_all_classes(tmp_path: Path) -> None:
    plan = planned(tmp_path, POINT, score=0.2)
    assert plan.score == {"cacao_tree": 0.2, "shade_tree": 0.2}
    assert (plan.notes, plan.nms_iou) == ([], 0.4)


def test_the_network_suppresses_as_the_point_says() -> None:
    config = light_config()
    trained = Trained(build_model(config, SPEC), config, SPEC, None)
    TrainedNetwork(trained, Runtime.single("cpu"), nms_iou=POINT.nms_iou)
    assert trained.model.nms_iou == 0.4
    again = Trained(build_model(config, SPEC), config, SPEC, None)
    TrainedNetwork(again, Runtime.single("cpu"))
    assert again.model.nms_iou == config.validation.nms_iou


@pytest.mark.parametrize(("gsd_m", "refused"), [(0.0501, False), (0.0499, True), (0.799, False), (0.801, True)])
def test_four_times_finer_or_coarser_is_the_limit(tmp_path: Path, gsd_m: float, refused: bool) -> None:
    """A raster of 0.2 m a pixel, and a network trained at about a quarter and about four times that."""
    path = write_coordinates(
        tmp_path / "a.tif", (64, 64), crs="EPSG:32724", transform=Affine(0.2, 0, 5e5, 0, -0.2, 8e6)
    )
    spec = plan_of([path], tmp_path / "map.gpkg").spec
    if refused:
        with pytest.raises(DataError, match="at most 4 is allowed"):
            open_picture(path, spec, gsd_m, match=True)
    else:
        side = round(64 * 0.2 / gsd_m)
        assert open_picture(path, spec, gsd_m, match=True).grid_hw == (side, side)


@pytest.mark.parametrize(("gsd_m", "side"), [(0.2, 64), (0.2038, 64), (0.1962, 64), (0.205, 62), (0.195, 66)])
def test_within_two_per_cent_the_raster_is_read_as_it_is(tmp_path: Path, gsd_m: float, side: int) -> None:
    path = write_coordinates(
        tmp_path / "a.tif", (64, 64), crs="EPSG:32724", transform=Affine(0.2, 0, 5e5, 0, -0.2, 8e6)
    )
    picture = open_picture(path, plan_of([path], tmp_path / "map.gpkg").spec, gsd_m, match=True)
    assert picture.grid_hw == (side, side)
    assert ("is resampled from 0.2 to" in picture.note) == (side != 64)


HW = (120, 160)
DISCS = [Disc(40, 40, 10), Disc(110, 80, 14, 2)]


def test_crowns_of_several_images_have_their_own_numbers(tmp_path: Path) -> None:
    images = [
        write_coordinates(tmp_path / f"{name}.tif", HW, crs="EPSG:32724", transform=Affine(0.2, 0, x, 0, -0.2, 8e6))
        for name, x in (("a", 500_000), ("b", 500_100))
    ]
    done = run(plan_of(images, tmp_path / "map.gpkg", overlap=30), InProcess(Perfect(DISCS, HW)))
    crowns, shapes = layer(tmp_path / "map.gpkg")
    assert done.crowns == 4
    assert crowns["crown_id"] == [1, 2, 3, 4]
    assert crowns["image"] == [str(image) for image in images for _ in DISCS]
    plots, _ = layer(tmp_path / "map.gpkg", "plots")
    assert (plots["image"], plots["n_crowns"]) == ([str(image) for image in images], [2, 2])
    for shape, image in zip(shapes, crowns["image"], strict=True):
        with rasterio.open(image) as source:
            assert source.bounds.left < shape.centroid.x < source.bounds.right


@pytest.mark.parametrize("ending", [".geojson", ".fgb"])
def test_a_raster_in_degrees_gives_longitude_and_latitude(tmp_path: Path, ending: str) -> None:
    """What GeoJSON's standard asks for; other systems are stated in the file (`test_rasters.py`)."""
    place = Affine(2e-6, 0, -39.2, 0, -2e-6, -14.8)
    image = write_coordinates(tmp_path / "a.tif", HW, crs="EPSG:4326", transform=place)
    run(plan_of([image], tmp_path / f"map{ending}", overlap=30), InProcess(Perfect(DISCS, HW)))
    crowns, shapes = layer(tmp_path / f"map{ending}", None)
    at = np.array([(d.x, d.y, 1.0) for d in DISCS]) @ np.array(place).reshape(3, 3)[:2].T
    found = np.array(sorted((shape.centroid.x, shape.centroid.y) for shape in shapes))
    assert np.abs(found - np.array(sorted(at.tolist()))).max() < 1e-6
    told = np.array(sorted(zip(crowns["centroid_x"], crowns["centroid_y"], strict=True)))
    assert np.abs(told - found).max() < 1e-6
