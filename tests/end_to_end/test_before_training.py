"""The real task before its first step: data is looked at, metrics are known, a dry run writes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import farm_config, write_farm
from memory_reporter import MemoryReporter

from cabruca.config.schema import Config
from cabruca.errors import CabrucaError, ConfigError, DataError
from cabruca.run import run_training
from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask, no_autocast
from cabruca.train.learner import Learner
from cabruca.train.loop import train


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_farm(tmp_path_factory.mktemp("farm"), pictures=2)


SMALL = {"model.pretrained": "none", "data.windows_per_epoch": 4}


def _config(farm: Path, folder: Path, **changes: Any) -> Config:
    return farm_config(farm, folder / "outputs", {**SMALL, **changes})


@pytest.mark.parametrize("boxes_only", [False, True])
def test_every_metric_of_a_validation_was_named_beforehand(tmp_path: Path, boxes_only: bool) -> None:
    farm = write_farm(tmp_path, pictures=1, boxes_only=boxes_only)
    task = CabrucaTask(_config(farm, tmp_path))
    model = task.build_model()
    if not boxes_only:  # as after a step: then masks are measured as well
        model.instance.mask_trained.fill_(True)  # type: ignore[union-attr,operator]
    found = task.validate(model, Runtime.single(), no_autocast, epoch=1).metrics
    assert found.keys() <= task.metric_names(), found.keys() - task.metric_names()
    assert {"total_loss", "mAP_50", "bbox_mAP/cacao_tree", "iou/shade_tree", "canopy_iou"} <= found.keys()
    assert boxes_only or "segm_mAP_50/cacao_tree" in found


def _without_gsd(farm: Path) -> None:
    coco = json.loads((farm / "farm.json").read_text())
    del coco["images"][-1]["gsd_m"]
    (farm / "farm.json").write_text(json.dumps(coco))


def _without_picture(farm: Path) -> None:
    (farm / "images" / "2.png").unlink()


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize(
    ("spoil", "changes", "line"),
    [
        (_without_gsd, {"data.target_gsd_m": 0.2}, "ground sampling distance"),
        (_without_picture, {}, "'2.png' is not a file"),
        (lambda _: None, {"data.bands": [1, 2, 7]}, r"has 3 band\(s\) and data.bands asks for \[1, 2, 7\]"),
    ],
)
def test_a_data_error_leaves_nothing(
    farm: Path, tmp_path: Path, *, part: str, spoil: Any, changes: Any, line: str
) -> None:
    other = tmp_path / "other"
    shutil.copytree(farm, other)
    spoil(other)
    places = {f"data.{part}_dir": str(other / "images"), f"data.{part}_annotations": str(other / "farm.json")}
    config = _config(farm, tmp_path, **places, **changes)
    with pytest.raises(DataError, match=line):
        run_training(config, quiet=True)
    assert not (tmp_path / "outputs").exists()


def test_the_task_itself_opens_both_sets_before_the_first_step(farm: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        gone = _config(farm, tmp_path, **{f"data.{part}_annotations": str(tmp_path / "gone.json")})
        spec = CabrucaTask(_config(farm, tmp_path)).spec
        with pytest.raises(DataError, match=r"gone\.json"):
            CabrucaTask(gone, spec).prepare()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model.backbone": "resnet5O"}, "resnet5O"),
        ({"training.monitor_metric": "val/mAP50"}, "did you mean 'val/mAP_50'"),
        ({"training.monitor_metric": "val/iou/cacao"}, "did you mean 'val/iou/cacao_tree'"),
        ({"optimizer.param_groups": [{"name": "m", "match": "instance.msk*"}]}, "takes no trainable parameter"),
    ],
)
def test_a_configuration_that_does_not_fit_leaves_nothing(
    farm: Path, tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(CabrucaError, match=line):
        run_training(_config(farm, tmp_path, **changes), quiet=True)
    assert not (tmp_path / "outputs").exists()
    with pytest.raises(ConfigError, match="did you mean 'val/canopy_iou'"):
        train(
            _config(farm, tmp_path, **{"training.monitor_metric": "val/canopy_IoU"}),
            CabrucaTask(_config(farm, tmp_path)),
            runtime=Runtime.single(),
            reporter=MemoryReporter(),
        )


def test_a_dry_run_of_the_real_task_tells_the_cost_and_writes_nothing(
    farm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One head; groups as in the standard preset, though only one part is learnt."""
    groups = [{"name": name, "lr": 1e-4} for name in ("backbone", "heads", "custom")]
    capped = {"validation.max_detections": 1, "validation.score_threshold": 0.0}
    config = _config(farm, tmp_path, **{"model.heads": ["instance"], "optimizer.param_groups": groups}, **capped)
    result = run_training(config, dry_run=True)
    said = capsys.readouterr()
    assert result.step == 2
    assert "val/mAP_50" in result.metrics
    assert "s a step" in said.out
    assert "data: train: 2 picture(s)" in said.out
    assert "'custom' takes no trainable parameter" in said.err
    assert "max_detections is 1, and" not in said.err, "of a network that has learnt nothing yet"
    assert not (tmp_path / "outputs").exists()


def _weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]


@pytest.mark.parametrize("on", [True, False])
def test_channels_last_is_really_set(farm: Path, tmp_path: Path, on: bool) -> None:
    config = _config(farm, tmp_path, **{"training.channels_last": on})
    learner = Learner(config, CabrucaTask(config), Runtime.single(), stage_steps=[1])
    weights = _weights(learner.model)
    assert len(weights) > 5
    assert all(w.is_contiguous(memory_format=torch.channels_last) == on for w in weights)


def test_fp16_with_a_scaler_trains_the_real_network(farm: Path, tmp_path: Path) -> None:
    """The code that a GPU runs, on this CPU: two steps, finite or skipped, the scale in the state."""
    changes = {"training.mixed_precision": True, "training.precision": "fp16", "training.log_interval": 1}
    config = _config(farm, tmp_path, **changes)
    reporter = MemoryReporter(stop_at_step=2)
    train(config, CabrucaTask(config), runtime=Runtime.single(), reporter=reporter)
    state = reporter.state
    skipped = sum(r.metrics["train/skipped_steps"] for r in reporter.steps)
    assert state["scaler"]["scale"] == 65536.0 * 0.5**skipped
    assert skipped < 2, "at least one of the two steps is taken"
    assert all(torch.isfinite(v).all() for v in state["model"].values() if v.is_floating_point())
    taken = [r.metrics["train/total_loss"] for r in reporter.steps if not r.metrics["train/skipped_steps"]]
    assert taken
    assert all(0 < loss < 100 for loss in taken)
