"""The HPARAMS tab: read back with TensorBoard's own backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_helpers import LineTask, line_config
from tracker_reading import hparams_tab, tensorboard_points

from cabruca.run import run_training
from cabruca.tracking import tensorboard as tensorboard_module
from cabruca.tracking.tensorboard import hyperparameters


def check_tab(tmp_path: Path) -> None:
    best = {}
    for name, rate in (("a", 0.01), ("b", 0.003)):
        config = line_config(tmp_path, experiment_name=name, optimizer={"lr": rate}, tracking={})
        best[name] = run_training(config, task_factory=LineTask, quiet=True).best
    found = {run.split("/")[0]: (given, metrics) for run, given, metrics in hparams_tab(tmp_path)}
    assert found.keys() == {"a", "b"}, "one row a run"
    for name, rate in (("a", 0.01), ("b", 0.003)):
        given, metrics = found[name]
        assert given["optimizer.lr"] == rate
        assert given["scheduler.type"] == "cosine"
        assert given["training.num_epochs"] == 3
        assert metrics["best/val_mAP_50"] == pytest.approx(best[name], rel=1e-6)
    assert [step for step, _ in tensorboard_points(tmp_path / "a" / "tensorboard")["best/val_mAP_50"]] == [18]


def test_the_hparams_tab_lists_each_run_once_with_its_best_value(tmp_path: Path) -> None:
    check_tab(tmp_path)


def test_without_the_summaries_the_tab_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard_module.TensorBoardTracker, "_hyperparameters", lambda *_: None)
    with pytest.raises((AssertionError, KeyError)):
        check_tab(tmp_path)


def test_hyperparameters_are_what_tensorboard_can_hold() -> None:
    config = {
        "optimizer": {"lr": 0.1, "betas": [0.9, 0.999], "nesterov": True},
        "data": {"target_gsd_m": None},
        "tracking": {"mlflow_uri": "http://host"},
        "output_dir": "outputs",
    }
    assert hyperparameters(config) == {
        "optimizer.lr": 0.1,
        "optimizer.betas": "[0.9, 0.999]",
        "optimizer.nesterov": True,
    }
