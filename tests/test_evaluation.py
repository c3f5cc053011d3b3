"""Evaluation of a checkpoint: what it applies to other data, what it refuses, what it leaves unknown."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import LIGHT, SPEC, drawn_sample
from drawn_data import box, write_raster
from drawn_farm import farm_config, write_farm
from memory_reporter import MemoryReporter
from rasterio.transform import from_origin

from cabruca.config.schema import Config, DataConfig, ValidationConfig
from cabruca.data.dataset import input_spec
from cabruca.errors import CabrucaError, CheckpointError, DataError
from cabruca.evaluation import evaluate, load_model
from cabruca.model.build import build_model
from cabruca.model.segmenter import Segmenter
from cabruca.runtime import Runtime
from cabruca.structures import Batch, InputSpec, collate
from cabruca.task import CabrucaTask, weighted
from cabruca.train.checkpoint import FORMAT_VERSION
from cabruca.train.loop import train
from cabruca.train.meters import Sums

CLASSES = [{"id": 1, "name": "cacao_tree"}, {"id": 2, "name": "shade_tree"}]


def checkpoint_of(path: Path, config: Config, spec: InputSpec, **changes: Any) -> Path:
    state = {
        "format_version": FORMAT_VERSION,
        "model": build_model(config, spec, weights=False).state_dict(),
        "config": config.to_dict(),
        "task": {"input": spec.to_dict()},
    }
    torch.save({**state, **changes}, path)
    return path


def raster_set(folder: Path, bands: np.ndarray, annotations: list[dict[str, Any]], **profile: Any) -> Path:
    write_raster(folder / "a.tif", bands, photometric="MINISBLACK", **profile)
    images = [{"id": 1, "file_name": "a.tif", "height": bands.shape[1], "width": bands.shape[2]}]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CLASSES}))
    return truth


def light(folder: Path, truth: Path, *, heads: tuple[str, ...] | None = None, **data: Any) -> Config:
    paths = {"train_dir": str(folder), "val_dir": str(folder)}
    files = {"train_annotations": str(truth), "val_annotations": str(truth)}
    model = LIGHT.model_copy(update={"pretrained": "none"} | ({} if heads is None else {"heads": heads}))
    return Config(model=model, data=DataConfig(**paths, **files, overlap=16, tile_size=64, **data))


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What the network gets to see, picture by picture."""
    kept: list[torch.Tensor] = []
    real = Segmenter.normalised

    def spy(self: Segmenter, batch: Batch) -> torch.Tensor:
        kept.append(real(self, batch))
        return kept[-1]

    monkeypatch.setattr(Segmenter, "normalised", spy)
    return kept


def test_bands_scale_mean_and_resolution_are_the_checkpoints(tmp_path: Path, seen: list[torch.Tensor]) -> None:
    """16 bits, four bands in another order, 5 cm seen at 10 cm."""
    values = (1000, 20000, 30000, 40000)
    bands = np.stack([np.full((192, 128), v, np.uint16) for v in values])
    place = {"crs": "EPSG:31984", "transform": from_origin(478512.0, 8363720.0, 0.05, 0.05)}
    truth = raster_set(tmp_path, bands, [box(20, 30, 40, 20), box(80, 100, 20, 30, ident=2, category=2)], **place)
    mean, std = (0.1, 0.2, 0.3, 0.4), (0.5, 0.25, 0.2, 0.1)
    config = light(tmp_path, truth, bands=(4, 2, 1, 3), target_gsd_m=0.1, mean=mean, std=std)
    spec = input_spec(config)
    assert (spec.scale, spec.dtype) == (65535.0, "uint16")
    found = evaluate(checkpoint_of(tmp_path / "c.pth", config, spec), tmp_path, truth, device="cpu")
    (image,) = seen
    assert image.shape == (1, 4, 96, 64)
    for k, band in enumerate((4, 2, 1, 3)):
        expected = (values[band - 1] / 65535 - mean[k]) / std[k]
        torch.testing.assert_close(image[0, k], torch.full((96, 64), expected), rtol=1e-5, atol=1e-5)
    assert found["total_count_true"] == 2
    assert found["loss_semantic"] is None
    narrow = raster_set(tmp_path / "narrow", (bands // 257).astype(np.uint8), [], **place)
    with pytest.raises(DataError, match=r"uint8 pixels.*uint16 pixels.*data\.scale"):
        evaluate(tmp_path / "c.pth", tmp_path / "narrow", narrow, device="cpu")


def test_a_raster_with_a_grid_window_of_nodata_is_evaluated(tmp_path: Path) -> None:
    """The right half of 128 x 256 px is NoData, so the last of its windows shows nothing else."""
    bands = np.full((3, 128, 256), 90, np.uint8)
    bands[:, :, 120:] = 0
    truth = raster_set(tmp_path, bands, [box(20, 30, 40, 20), box(200, 30, 40, 20, ident=2)], nodata=0)
    config = light(tmp_path, truth, mean=(0.1,) * 3, std=(1.0,) * 3)
    config = config.model_copy(update={"validation": ValidationConfig(max_side_px=128, batch_size=2)})
    found = evaluate(checkpoint_of(tmp_path / "c.pth", config, input_spec(config)), tmp_path, truth, device="cpu")
    assert found["total_loss"] is not None
    assert found["total_count_true"] == 1, "nobody can see the crown on NoData"


def test_a_cap_that_may_have_cost_crowns_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Every crown counts, and one may be found where one stands."""
    truth = raster_set(tmp_path, np.full((3, 128, 128), 90, np.uint8), [box(20, 30, 40, 20)])
    config = light(tmp_path, truth, heads=("instance",), mean=(0.1,) * 3, std=(1.0,) * 3)
    for cap, said in ((1, True), (300, False)):
        caplog.clear()
        own = config.model_copy(update={"validation": ValidationConfig(max_detections=cap)})
        checkpoint = checkpoint_of(tmp_path / f"{cap}.pth", own, input_spec(own))
        evaluate(checkpoint, tmp_path, truth, device="cpu", score_threshold=0.0)
        assert ("validation.max_detections is 1, and in 1 picture or window" in caplog.text) == said


def test_without_an_instance_head_crowns_are_unknown(tmp_path: Path) -> None:
    bands = np.full((3, 128, 128), 90, np.uint8)
    truth = raster_set(tmp_path, bands, [box(20, 30, 40, 20)])
    config = light(tmp_path, truth, heads=("semantic", "density"), mean=(0.1,) * 3, std=(1.0,) * 3)
    found = evaluate(checkpoint_of(tmp_path / "c.pth", config, input_spec(config)), tmp_path, truth, device="cpu")
    assert found["bbox_mAP"] is found["total_count"] is found["total_count_accuracy"] is found["canopy_iou"] is None
    assert found["total_count_true"] == 1
    assert "loss_instance" not in found


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda state: state.pop(key)


MALFORMED: dict[str, Callable[[dict[str, Any]], None]] = {
    "no task": drop("task"),
    "no config": drop("config"),
    "no model": drop("model"),
    "task is a list": lambda s: s.update(task=[1, 2]),
    "task is None": lambda s: s.update(task=None),
    "input is a text": lambda s: s["task"].update(input="rgb"),
    "input lacks bands": lambda s: s["task"]["input"].pop("bands"),
    "bands are a number": lambda s: s["task"]["input"].update(bands=3),
    "mean is of another length": lambda s: s["task"]["input"].update(mean=[0.5]),
    "mean is text": lambda s: s["task"]["input"].update(mean=["a", "b", "c"]),
    "config is a list": lambda s: s.update(config=[]),
    "config of an unknown key": lambda s: s["config"].update(colour="blue"),
    "model is a number": lambda s: s.update(model=7),
    "model lacks a tensor": lambda s: s["model"].pop("semantic.classify.weight"),
    "model of another shape": lambda s: s["model"].update({"semantic.classify.weight": torch.zeros(2)}),
    "model of texts": lambda s: s.update(model={"semantic.classify.weight": "x"}),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = Config(model=LIGHT.model_copy(update={"pretrained": "none"}))
    return checkpoint_of(tmp_path_factory.mktemp("good") / "c.pth", config, SPEC)


@pytest.mark.parametrize("spoil", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_checkpoint_is_one_line(
    good: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    state = torch.load(good, weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad\.pth") as error:
        load_model(tmp_path / "bad.pth")
    assert isinstance(error.value, CabrucaError)
    assert "\n" not in str(error.value)
    assert ";" in str(error.value), "says what to do"


def test_a_checkpoint_of_before_brings_its_statistics_in_the_specification(good: Path, tmp_path: Path) -> None:
    state = torch.load(good, weights_only=True)
    state["model"] |= {"mean": torch.full((3, 1, 1), 9.0), "std": torch.full((3, 1, 1), 9.0)}
    torch.save(state, tmp_path / "early.pth")
    model, _, spec = load_model(tmp_path / "early.pth")
    assert model.mean.flatten().tolist() == list(spec.mean) == [0.5, 0.5, 0.5]


def test_the_record_of_a_part_does_not_depend_on_the_cut(tmp_path: Path) -> None:
    """Pictures with and without masks, in one batch and one by one: means over those that have the truth."""
    config = Config(model=LIGHT)
    model = build_model(config, SPEC).double().train()
    samples = [drawn_sample([(40, 40, 14, 1), (90, 80, 18, 2)], index=i, masks=i in {0, 2}) for i in range(4)]

    def record(cuts: list[list[int]]) -> dict[str, float]:
        sums = Sums()
        for cut in cuts:
            batch = collate([samples[i] for i in cut]).to("cpu", dtype=torch.float64)
            sums.add_losses(weighted(model(batch).terms, config, batch))
        return {k: v for k, v in sums.metrics().items() if "loss" in k}

    whole, singles, pairs = record([[0, 1, 2, 3]]), record([[0], [1], [2], [3]]), record([[0, 2], [1, 3]])
    assert whole == pytest.approx(singles, rel=1e-9)
    assert whole == pytest.approx(pairs, rel=1e-9)
    masked = record([[0], [2]])
    for name in ("semantic", "crown", "density", "instance/mask"):
        assert whole[f"train/loss_{name}"] == pytest.approx(masked[f"train/loss_{name}"], rel=1e-9)
    boxes = record([[1], [3]])
    assert {k for k, v in boxes.items() if math.isnan(v)} == {
        f"train/loss_{n}" for n in ("semantic", "crown", "density", "instance/mask")
    }
    assert boxes.keys() == whole.keys()


def test_one_class_with_masks_and_one_without(tmp_path: Path) -> None:
    farm = write_farm(tmp_path / "farm", box_classes=frozenset({2}))
    config = farm_config(farm, tmp_path, {"training.num_epochs": 1, "model.pretrained": "none"})
    reporter = MemoryReporter()
    train(config, CabrucaTask(config), runtime=Runtime.single(), reporter=reporter)
    assert reporter.state["model"]["instance.mask_trained"].tolist() == [False, True, False]
    torch.save({"format_version": FORMAT_VERSION, **reporter.state}, tmp_path / "c.pth")
    found = evaluate(tmp_path / "c.pth", farm / "images", farm / "farm.json", device="cpu")
    assert "segm_mAP/cacao_tree" in found
    assert "segm_mAP/shade_tree" not in found
    assert found["segm_mAP"] == found["segm_mAP/cacao_tree"]
    masks, boxes = found["segm_mAP/cacao_tree"], found["bbox_mAP/shade_tree"]
    assert masks is not None
    assert boxes is not None
    assert found["mAP"] == pytest.approx((masks + boxes) / 2)


def test_a_grid_validates_the_truth_that_the_whole_picture_has(tmp_path: Path) -> None:
    farm = write_farm(tmp_path / "farm")
    changes = {"model.pretrained": "none", "data.overlap": 16, "data.mean": [0.4] * 3, "data.std": [0.2] * 3}
    counted = []
    for side in (1024, 64):
        config = farm_config(farm, tmp_path, {**changes, "validation.max_side_px": side})
        task = CabrucaTask(config)
        assert len(task.validation_windows) == (3 if side == 1024 else 3 * 9)
        found = task.validate(task.build_model(), Runtime.single(), torch.no_grad, epoch=1).metrics
        counted.append({k: v for k, v in found.items() if k.endswith("_count_true")})
    assert counted[0] == counted[1]
    assert counted[0]["total_count_true"] == 18


def test_specifications_round_trip() -> None:
    spec = dataclasses.replace(SPEC, dtype="uint8", category_map={"inga": "shade_tree"})
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
