"""The practice plot: the same bytes for a seed, and truth that agrees with itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.features import rasterize

from cabruca.config.schema import Config, DataConfig
from cabruca.data.check import full_check
from cabruca.data.coco import read_coco
from cabruca.data.dataset import EvaluationWindows, TrainWindows, input_spec
from cabruca.data.synthetic import MIN_VISIBLE, PlotFiles, draw_plot
from cabruca.data.synthetic_scene import draw_scene
from cabruca.errors import DataError

SIZE, GSD = 384, 0.1


@pytest.fixture(scope="module")
def plot(tmp_path_factory: pytest.TempPathFactory) -> PlotFiles:
    return draw_plot(tmp_path_factory.mktemp("plot"), size_px=SIZE, gsd_m=GSD, seed=3)


def _config(plot: PlotFiles) -> Config:
    return Config(
        data=DataConfig(
            train_dir=str(plot.images_dir),
            val_dir=str(plot.images_dir),
            train_annotations=str(plot.train_annotations),
            val_annotations=str(plot.val_annotations),
            tile_size=128,
        )
    )


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_seed_gives_the_same_bytes(tmp_path: Path, plot: PlotFiles) -> None:
    again = draw_plot(tmp_path / "again", size_px=SIZE, gsd_m=GSD, seed=3)
    assert _digests(again.images_dir) == _digests(plot.images_dir)
    other = draw_plot(tmp_path / "other", size_px=SIZE, gsd_m=GSD, seed=4)
    assert not set(_digests(other.images_dir).values()) & set(_digests(plot.images_dir).values())


def test_every_mask_lies_on_its_own_class_and_crowns_never_overlap(plot: PlotFiles) -> None:
    for part in ("train", "val"):
        (image,) = read_coco(plot.images_dir / f"{part}.json").images
        with rasterio.open(plot.images_dir / f"masks/plot_{part}.tif") as file:
            semantic = file.read(1)
        taken = np.zeros(semantic.shape, dtype=int)
        hw = semantic.shape
        for a in image.annotations:
            crop = a.paint(hw, hw)
            assert crop is not None
            x, y, bitmap = crop
            here = np.s_[y : y + bitmap.shape[0], x : x + bitmap.shape[1]]
            assert (semantic[here][bitmap > 0] == a.category_id).all()
            taken[here] += bitmap
            assert a.box_xyxy_px == (x, y, x + bitmap.shape[1], y + bitmap.shape[0])
            assert a.crown_diameter is not None
            # the diameter is of the whole crown: what shows is never more, and at least the share that is asked for
            whole_px = np.pi * (a.crown_diameter / GSD / 2) ** 2
            assert MIN_VISIBLE * 0.99 < bitmap.sum() / whole_px < 1.01
        assert taken.max() == 1
        assert set(np.unique(semantic)) >= {1, 2, 3, 4, 5}


def test_cacao_under_shade_shows_in_part_or_not_at_all() -> None:
    scene = draw_scene(512, 0.1, seed=1)
    shown = np.bincount(scene.instance.ravel(), minlength=len(scene.trees) + 1)
    inside = [
        (tree, shown[n]) for n, tree in enumerate(scene.trees, 1) if 40 < tree.x_px < 472 and 40 < tree.y_px < 472
    ]
    shares = np.array([s / t.area_px for t, s in inside if t.label == 1])
    assert (shares == 0).sum() > 3  # hidden
    assert ((shares > 0.1) & (shares < 0.9)).sum() > 5  # in part
    assert (shares == 1).sum() > 30  # free
    assert all(s / t.area_px > 0.6 for t, s in inside if t.label == 2)


def test_the_two_parts_are_neighbours_on_the_ground(plot: PlotFiles) -> None:
    with rasterio.open(plot.train_image) as train, rasterio.open(plot.val_image) as val:
        assert train.crs.to_epsg() == val.crs.to_epsg() == 31984
        assert train.bounds.right == pytest.approx(val.bounds.left, abs=1e-6)
        assert train.res == pytest.approx((GSD, GSD))
        assert train.width + val.width == SIZE
        assert train.profile["tiled"]
        assert train.dtypes == ("uint8",) * 3
    report = full_check(_config(plot))
    assert report.ok, str(report)


def test_geojson_outlines_are_the_masks(plot: PlotFiles) -> None:
    content = json.loads(plot.crowns_geojson.read_text())
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::31984"
    with rasterio.open(plot.train_image) as file:
        transform, shape = file.transform, file.shape
    with rasterio.open(plot.train_mask) as file:
        semantic = file.read(1)
    labels = {"cacao_tree": 1, "shade_tree": 2}
    painted = rasterize(
        [(f["geometry"], labels[f["properties"]["class"]]) for f in content["features"]], shape, transform=transform
    )
    crowns = np.where(np.isin(semantic, (1, 2)), semantic, 0)
    assert (painted != crowns).mean() < 0.01  # but for crowns that hardly show
    assert not ((painted > 0) & (painted != crowns)).any()


def test_it_trains_and_validates_as_any_other_set(plot: PlotFiles) -> None:
    config = _config(plot)
    spec = input_spec(config)
    sample = TrainWindows(config, spec).get(0, 0)
    assert bool(sample.valid.all())
    assert len(sample.crowns) > 3
    assert sample.density is not None
    windows = EvaluationWindows(
        plot.images_dir, plot.val_annotations, spec, max_side_px=1024, overlap=32, min_visible_share=0.3, cache_mb=8
    )
    assert windows.has_masks(1)
    assert windows.has_masks(2)
    whole = windows.get(0)
    assert len(whole.crowns) == plot.num_val_crowns
    metres = whole.crowns.diameter_px * whole.gsd_m
    cacao, shade = metres[whole.crowns.labels == 1], metres[whole.crowns.labels == 2]
    assert 1.5 < float(cacao.median()) < 4
    assert 4 < float(shade.median()) < 14


def test_a_plot_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="use 128 px or more"):
        draw_plot(tmp_path, size_px=64)
