"""Samples as a whole: determinism, loader processes, padding, resampling, measured statistics, the real sets."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_data import DataSet, box, crown, disc

from cabruca.config.schema import AugmentationConfig, Config, DataConfig
from cabruca.data.dataset import EvaluationWindows, TrainWindows, input_spec
from cabruca.data.loaders import evaluation_batches, train_batches
from cabruca.errors import DataError
from cabruca.runtime import Runtime
from cabruca.structures import Batch, CroppedMasks, Crowns, Regions, Sample

ALL_ON = AugmentationConfig(random_rotate=0.6, random_scale=0.6, brightness_contrast=0.8, random_crop=True)


def _flat(value: Any) -> list[Any]:
    """Every tensor and plain value inside samples and batches, in order."""
    if isinstance(value, Sample | Batch | Crowns | Regions | CroppedMasks):
        return [x for f in fields(value) for x in _flat(getattr(value, f.name))]
    if isinstance(value, list | tuple):
        return [x for v in value for x in _flat(v)]
    return [value.numpy().tobytes() + str(value.shape).encode() if isinstance(value, torch.Tensor) else value]


def _config(data_set: DataSet, **data: Any) -> Config:
    rng = np.random.default_rng(5)
    for k in range(3):
        data_set.picture(rng.integers(0, 255, (3, 150 + 40 * k, 200)).astype(np.uint8), f"{k}.png", gsd_m=0.1)
    rows = []
    for i in range(45):
        x, y = rng.uniform(10, 140, 2)
        image = i % 3 + 1
        hw = (150 + 40 * (image - 1), 200)
        mask = disc(*hw, x, y, rng.uniform(4, 12))
        rows.append(
            crown(mask, ident=i, image=image, category=i % 2 + 1) if i % 5 else box(x, y, 15, 9, ident=i, image=image)
        )
    return data_set.config(rows, tile_size=64, augmentation=ALL_ON, **data)


def test_a_sample_is_a_function_of_seed_epoch_and_index(data_set: DataSet) -> None:
    config = _config(data_set)
    spec = input_spec(config)
    one, other = TrainWindows(config, spec), TrainWindows(config, spec)
    n = one.num_samples()
    forward = [_flat(one.get(2, i)) for i in range(n)]
    backward = [_flat(other.get(2, i)) for i in reversed(range(n))][::-1]
    assert forward == backward
    assert all(_flat(one.get(3, i)) != forward[i] for i in range(n))
    reseeded = config.model_copy(update={"training": config.training.model_copy(update={"seed": 1})})
    assert _flat(TrainWindows(reseeded, spec).get(2, 0)) != forward[0]


def test_an_epoch_has_the_windows_that_its_pixels_need(data_set: DataSet) -> None:
    config = _config(data_set)
    # ceil(150 * 200 / 64^2) + ceil(190 * 200 / 64^2) + ceil(230 * 200 / 64^2)
    assert TrainWindows(config, input_spec(config)).num_samples() == 8 + 10 + 12
    fixed = config.model_copy(update={"data": config.data.model_copy(update={"windows_per_epoch": 7})})
    assert TrainWindows(fixed, input_spec(fixed)).num_samples() == 7


def test_loader_processes_give_the_same_batches_and_touch_no_global_random_state(data_set: DataSet) -> None:
    config = _config(data_set)
    windows = TrainWindows(config, input_spec(config))
    plan = [[3, 1], [0, 2], [5]]
    state = torch.get_rng_state()
    alone = [_flat(b) for b in train_batches(windows, 1, plan, Runtime.single(), pin_memory=False)]
    helped = Runtime.single(loaders=1)
    assert [_flat(b) for b in train_batches(windows, 1, plan, helped, pin_memory=False)] == alone
    unfinished = train_batches(windows, 4, plan, helped, pin_memory=False)  # left in the middle, as by a stop
    next(unfinished)
    unfinished.close()
    assert [_flat(b) for b in train_batches(windows, 1, plan, helped, pin_memory=False)] == alone
    assert torch.equal(torch.get_rng_state(), state)
    copy = pickle.loads(pickle.dumps(windows))  # what a spawned process gets
    assert [_flat(b) for b in train_batches(copy, 1, plan, Runtime.single(), pin_memory=False)] == alone


def test_an_error_in_a_loader_process_stays_one_line(data_set: DataSet) -> None:
    config = _config(data_set)
    windows = TrainWindows(config, input_spec(config))
    (data_set.folder / "0.png").write_bytes(b"not a picture")
    for loaders in (0, 1):
        with pytest.raises(DataError, match=r"0\.png") as error:
            list(train_batches(windows, 0, [[0], [29]], Runtime.single(loaders=loaders), pin_memory=False))
        assert "\n" not in str(error.value)


def test_loader_processes_end_with_the_process_they_serve(data_set: DataSet) -> None:
    """They ignore SIGTERM while training goes on, and Python waits for them at its end: this must not hang."""
    config = _config(data_set)
    script = (
        "import sys; from cabruca.config.schema import Config; from cabruca.runtime import Runtime\n"
        "from cabruca.data.dataset import TrainWindows, input_spec; from cabruca.data.loaders import train_batches\n"
        "import pickle; config = pickle.load(open(sys.argv[1], 'rb')); w = TrainWindows(config, input_spec(config))\n"
        "batches = train_batches(w, 0, [[0], [1], [2]], Runtime.single(loaders=1), pin_memory=False)\n"
        "next(batches)\n"
        "import os, signal, multiprocessing\n"
        "for p in multiprocessing.active_children(): os.kill(p.pid, signal.SIGTERM); os.kill(p.pid, signal.SIGINT)\n"
        "next(batches); next(batches); print('made three')\n"
    )
    stored = data_set.folder / "config.pkl"
    stored.write_bytes(pickle.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", script, stored], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "made three\n"


def test_a_small_picture_is_padded_right_and_bottom(data_set: DataSet) -> None:
    data_set.picture(np.full((3, 50, 40), 200, dtype=np.uint8))
    config = data_set.config(
        [crown(disc(50, 40, 20, 20, 8))], tile_size=64, scale=255.0, augmentation=AugmentationConfig(enabled=False)
    )
    windows = TrainWindows(config, input_spec(config))
    sample = windows.get(0, 0)
    inside = np.zeros((64, 64), dtype=bool)
    inside[:50, :40] = True
    np.testing.assert_array_equal(sample.valid, inside)
    assert sample.size_hw_px == (50, 40)
    assert sample.core_xyxy_px == (0, 0, 40, 50)
    assert sample.semantic is not None
    np.testing.assert_array_equal(sample.semantic == 255, ~inside)
    assert sample.crowns.boxes_xyxy_px.tolist() == [[12, 12, 28, 28]]
    turned = config.model_copy(update={"data": config.data.model_copy(update={"augmentation": ALL_ON})})
    for epoch in range(12):
        sample = TrainWindows(turned, input_spec(turned)).get(epoch, 0)
        mask = sample.crowns.masks.dense(64, 64).amax(0)
        assert not (mask > sample.valid).any()


def test_windows_of_five_16_bit_bands_and_of_one(data_set: DataSet) -> None:
    rng = np.random.default_rng(0)
    five = rng.integers(0, 40000, (5, 96, 96)).astype(np.uint16)
    data_set.picture(five, profile={"photometric": "MINISBLACK"})
    config = data_set.config([box(5, 5, 20, 20)], bands=(4, 1), tile_size=64, plain=False)
    spec = input_spec(config)
    assert spec.scale == 65535
    sample = TrainWindows(
        config.model_copy(
            update={"data": config.data.model_copy(update={"augmentation": AugmentationConfig(enabled=False)})}
        ),
        spec,
    ).get(0, 0)
    _, y, x = (int(v) for v in sample.picture.split(":"))
    np.testing.assert_allclose(sample.image, five[[3, 0], y : y + 64, x : x + 64] / 65535, rtol=1e-6)
    np.testing.assert_allclose(spec.mean, five[[3, 0]].mean((1, 2)) / 65535, rtol=0.05)
    np.testing.assert_allclose(spec.std, five[[3, 0]].std((1, 2)) / 65535, rtol=0.05)


def test_statistics_leave_nodata_out(data_set: DataSet) -> None:
    picture = np.full((3, 128, 128), 100, dtype=np.uint8)
    picture[0, ::2] = 200
    picture[:, :, :64] = 0
    data_set.picture(picture, profile={"nodata": 0})
    spec = input_spec(data_set.config([box(70, 5, 20, 20)], tile_size=64, plain=False))
    np.testing.assert_allclose(spec.mean, [150 / 255, 100 / 255, 100 / 255], rtol=1e-6)
    np.testing.assert_allclose(spec.std, [50 / 255, 1.0, 1.0], rtol=1e-6)  # a constant band is divided by 1


def test_pictures_of_several_types_need_a_scale(data_set: DataSet) -> None:
    data_set.picture(np.ones((3, 64, 64), dtype=np.uint8), "a.tif")
    data_set.picture(np.ones((3, 64, 64), dtype=np.uint16), "b.tif")
    with pytest.raises(DataError, match=r"set data\.scale"):
        input_spec(data_set.config([], tile_size=64))
    assert input_spec(data_set.config([], tile_size=64, scale=100.0)).scale == 100


@pytest.mark.parametrize("tiled", [True, False])
def test_target_gsd_resamples_pixels_and_truth_alike(data_set: DataSet, utm: Any, tiled: bool) -> None:
    """A crown of 3 m at 0.1 m a pixel has a diameter of 12 px at 0.25 m, and its bright disc lies in its mask."""
    picture = np.full((3, 300, 400), 30, dtype=np.uint8)
    mask = disc(300, 400, 200, 120, 15)
    picture[:, mask] = 250
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64} if tiled else {}
    data_set.picture(picture, profile={**utm(0.1), **layout})
    config = data_set.config([crown(mask, crown_diameter=3.0)], target_gsd_m=0.25, scale=255.0)
    windows = EvaluationWindows(
        data_set.folder, config.data.val_annotations, input_spec(config),
        max_side_px=1024, overlap=0, min_visible_share=0.3, cache_mb=16,
    )  # fmt: skip
    sample = windows.get(0)
    assert sample.size_hw_px == (120, 160)
    assert sample.gsd_m == 0.25
    assert float(sample.crowns.diameter_px[0]) == pytest.approx(12.0)
    np.testing.assert_allclose(sample.crowns.boxes_xyxy_px[0], [74, 42, 86, 54], atol=0.5)
    found = sample.crowns.masks.dense(128, 160)[0] > 0
    bright = sample.image[0] > 0.55
    assert int((found ^ bright).sum()) <= 0.1 * int(found.sum())
    unknown = data_set.config([], target_gsd_m=0.25)
    data_set.picture(picture, "nowhere.tif")
    with pytest.raises(DataError, match=r"target_gsd_m is 0\.25"):
        TrainWindows(data_set.config([], target_gsd_m=0.25), input_spec(unknown.model_copy()))


def test_evaluation_batches_join_neighbours_of_one_size(data_set: DataSet) -> None:
    for k, (h, w) in enumerate([(64, 64), (60, 50), (90, 64), (64, 64), (64, 33)]):
        data_set.picture(np.full((3, h, w), 9, dtype=np.uint8), f"{k}.png")
    config = data_set.config([])
    windows = EvaluationWindows(
        data_set.folder, config.data.val_annotations, input_spec(config),
        max_side_px=128, overlap=0, min_visible_share=0.3, cache_mb=16,
    )  # fmt: skip
    batches = list(evaluation_batches(windows, range(5), Runtime.single(), batch_size=2))
    assert [b.pictures for b in batches] == [["1:0:0", "2:0:0"], ["3:0:0"], ["4:0:0", "5:0:0"]]
    assert [tuple(b.images.shape[-2:]) for b in batches] == [(64, 64), (96, 64), (64, 64)]
    assert batches[0].sizes_hw_px == [(64, 64), (60, 50)]
    assert not windows.has_masks(1)


@pytest.mark.parametrize(
    ("name", "categories", "masks", "semantic"),
    [
        ("uav_planted_forest", {"tree": "shade_tree"}, True, True),
        ("cocoa_seedlings_uav", {}, True, True),
        ("oil_palm_uav", {"oil_palm": "shade_tree"}, False, False),
        ("neon_samples", {"live_tree": "shade_tree", "dead_tree": "ignore"}, False, False),
    ],
)
def test_the_real_sets_load(
    real_data: Callable[[str], Path], name: str, categories: dict[str, str], masks: bool, semantic: bool
) -> None:
    folder = str(real_data(name))
    files = {"train_annotations": f"{folder}/train.json", "val_annotations": f"{folder}/val.json"}
    config = Config(data=DataConfig(train_dir=folder, val_dir=folder, **files, category_map=categories, tile_size=256))
    spec = input_spec(config)
    assert spec.scale == 255
    assert all(0.05 < m < 0.95 for m in spec.mean)
    windows = TrainWindows(config, spec)
    samples = [windows.get(0, i) for i in range(min(8, windows.num_samples()))]
    assert sum(len(s.crowns) for s in samples) > 0
    assert any(bool(s.crowns.masks.has_mask.any()) for s in samples) == masks
    assert all((s.semantic is not None) == semantic for s in samples)
    validation = EvaluationWindows(
        folder, f"{folder}/val.json", spec, max_side_px=512, overlap=64, min_visible_share=0.3, cache_mb=64
    )
    label = spec.instance_classes.index("cacao_tree" if name.startswith("cocoa") else "shade_tree") + 1
    assert validation.has_masks(label) == masks
    (batch,) = list(evaluation_batches(validation, [0], Runtime.single(), batch_size=1))
    assert bool(torch.isfinite(batch.images).all())
    assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1
    assert os.environ.get("OMP_NUM_THREADS") == "1"
