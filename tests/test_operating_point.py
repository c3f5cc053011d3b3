"""The operating point in a checkpoint's sidecar: what is written is read, and the weights are not touched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import farm_config, write_farm

from cabruca import operating_point
from cabruca.errors import CheckpointError
from cabruca.operating_point import OperatingPoint
from cabruca.run import run_training
from cabruca.train import checkpoint

POINT = OperatingPoint(
    {"cacao_tree": 0.31, "shade_tree": 0.7},
    "count",
    nms_iou=0.4,
    measured={"cacao_tree": {"f1": 0.8, "count": 12.0}},
    found_on="validation after epoch 3",
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint_best.pth"
    checkpoint.write(path, {"model": {"w": torch.ones(9)}, "epoch": 3, "step": 30}, metric=0.5)
    return path


def test_what_is_written_is_read(saved: Path) -> None:
    before, facts = saved.read_bytes(), json.loads(saved.with_suffix(".json").read_text())
    assert operating_point.read(saved) is None
    operating_point.write(saved, POINT)
    assert operating_point.read(saved) == POINT
    assert saved.read_bytes() == before
    assert checkpoint.is_intact(saved)
    after = json.loads(saved.with_suffix(".json").read_text())
    assert {k: after[k] for k in facts} == facts
    assert [p.name for p in saved.parent.iterdir() if p.name.startswith(".")] == []


def test_a_second_name_keeps_its_own(saved: Path, tmp_path: Path) -> None:
    operating_point.write(saved, POINT)
    checkpoint.copy(saved, tmp_path / "second.pth")
    operating_point.write(saved, replace(POINT, chosen_by="f1"))
    assert operating_point.read(tmp_path / "second.pth") == POINT


def test_one_without_a_sidecar_gets_one(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    assert operating_point.read(saved) is None
    operating_point.write(saved, POINT)
    assert operating_point.read(saved) == POINT
    assert checkpoint.sidecar_of(saved) is not None
    assert json.loads(saved.with_suffix(".json").read_text())["epoch"] == 3


def test_a_damaged_one_gets_none(saved: Path) -> None:
    saved.write_bytes(b"torn" + saved.read_bytes())
    with pytest.raises(CheckpointError, match="damaged"):
        operating_point.write(saved, POINT)
    assert operating_point.read(saved) is None


@pytest.mark.parametrize(
    "wrong", [7, {}, {"score": 0.5}, *({"score": {"a": value}} for value in (1.5, -0.1, "x", float("nan")))]
)
def test_what_is_no_point_is_refused(saved: Path, wrong: Any) -> None:
    checkpoint.amend(saved, {"operating_point": wrong})
    with pytest.raises(CheckpointError, match="tune-thresholds"):
        operating_point.read(saved)


def test_what_validation_says_beside_its_metrics_is_in_the_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_latest.pth"
    state = {"model": {}, "epoch": 1, "step": 2, "beside": {"operating_point": POINT.to_dict()}}
    checkpoint.write(path, state, metric=None)
    assert operating_point.read(path) == POINT


def test_a_fresh_checkpoint_has_one(tmp_path: Path) -> None:
    """Whatever a network of one epoch finds: both classes have truth, and each gets a score with its measure."""
    farm = write_farm(tmp_path / "farm")
    run_training(
        farm_config(farm, tmp_path, {"experiment_name": "a", "training.num_epochs": 1, "optimizer.lr": 0.003}),
        quiet=True,
    )
    kept = tmp_path / "a" / "checkpoints"
    best, latest = (operating_point.read(kept / f"checkpoint_{name}.pth") for name in ("best", "latest"))
    assert best == latest
    assert best is not None
    assert set(best.score) <= {"cacao_tree", "shade_tree"}
    assert best.found_on == "validation after epoch 1"
    row = json.loads((tmp_path / "a" / "training_history.json").read_text())
    for name, measured in best.measured.items():
        short = name.removesuffix("_tree")
        assert measured["count_true"] == row[f"val/{short}_count_true"][0]
        assert measured["count_accuracy"] >= row[f"val/{short}_count_accuracy"][0]
