"""Whatever is wrong is found before a run folder is claimed: the corrected command, with the same name, works."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import LineTask, line_config
from torch import nn

from cabruca.config.schema import Config
from cabruca.errors import CheckpointError, ConfigError, DataError, RunError
from cabruca.run import run_training
from cabruca.tracking import trackers as trackers_module
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import read_status
from cabruca.train.protocols import BaseCallback, TrainResult


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers_module, "ResultsPlot", lambda *_: BaseCallback())


class Prepared(LineTask):
    """Names its metrics and opens its data."""

    built = 0

    def prepare(self) -> None: ...

    def metric_names(self) -> frozenset[str]:
        return frozenset({"total_loss", "loss_instance", "mAP_50", "undefined"})

    def build_model(self) -> nn.Module:
        type(self).built += 1
        return super().build_model()


class BrokenData(Prepared):
    def prepare(self) -> None:
        raise DataError("val: image 3 is gone; mend it")


class UnknownBackbone(Prepared):
    def build_model(self) -> nn.Module:
        raise ConfigError("model.backbone 'resnet5O' is not known; use resnet50")


def _run(config: Config, task: Callable[[Config], Any] = Prepared, **options: Any) -> TrainResult:
    return run_training(config, task_factory=task, quiet=True, **options)


FAULTS: list[tuple[dict[str, Any], dict[str, Any], Any, type[Exception], str]] = [
    ({}, {"init_from": "typo.pth"}, Prepared, CheckpointError, r"--init-from typo\.pth is not there"),
    ({}, {}, BrokenData, DataError, "image 3 is gone"),
    ({}, {}, UnknownBackbone, ConfigError, "resnet5O"),
    (
        {"optimizer": {"param_groups": [{"name": "mask", "match": "instance.msk*"}]}},
        {},
        Prepared,
        ConfigError,
        "'mask' with match 'instance.msk\\*' takes no trainable parameter",
    ),
    ({"training__monitor_metric": "val/mAP50"}, {}, Prepared, ConfigError, "did you mean 'val/mAP_50'"),
    ({"training__monitor_metric": "mAP_50"}, {}, Prepared, ConfigError, "did you mean 'val/mAP_50'"),
    (
        {"training__monitor_metric": "train/los_instance"},
        {},
        Prepared,
        ConfigError,
        "did you mean 'train/loss_instance'",
    ),
]


@pytest.mark.parametrize(("keys", "options", "task", "kind", "line"), FAULTS, ids=[f[-1][:20] for f in FAULTS])
def test_a_fault_leaves_nothing_behind(
    tmp_path: Path, *, keys: dict[str, Any], options: dict[str, Any], task: Any, kind: type[Exception], line: str
) -> None:
    for name in ("a", None):
        with pytest.raises(kind, match=line) as error:
            _run(line_config(tmp_path / "outputs", experiment_name=name, **keys), task, **options)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "outputs").exists()
    assert _run(line_config(tmp_path / "outputs", experiment_name="a")).state == "finished"


@pytest.mark.parametrize("name", ["train/total_loss", "train/loss_instance", "val/total_loss", "val/mAP_50"])
def test_what_is_measured_may_be_monitored(tmp_path: Path, name: str) -> None:
    config = line_config(tmp_path, training__monitor_metric=name, training__num_epochs=1)
    assert _run(config).best is not None


def test_the_model_is_built_once(tmp_path: Path) -> None:
    Prepared.built = 0
    _run(line_config(tmp_path, training__num_epochs=1))
    assert Prepared.built == 1


def test_a_taken_folder_is_refused_before_the_data_is_opened(tmp_path: Path) -> None:
    _run(line_config(tmp_path, experiment_name="a", training__num_epochs=1))
    with pytest.raises(RunError, match="already holds a run"):
        _run(line_config(tmp_path, experiment_name="a"), BrokenData)


def test_a_run_that_failed_before_it_left_anything_gives_its_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = line_config(tmp_path, experiment_name="a")
    monkeypatch.setenv("LINE_DIE", "0")
    with pytest.raises(RuntimeError):
        _run(config, LineTask)
    status = read_status(tmp_path / "a" / "status.json")
    assert status is not None
    assert status["state"] == "failed"
    assert RunDir(tmp_path / "a").was_stillborn
    monkeypatch.delenv("LINE_DIE")
    assert _run(config, LineTask).state == "finished"
    assert [p.name for p in (tmp_path / "a").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("kept", ["metrics.jsonl", "checkpoints/checkpoint_latest.pth"])
@pytest.mark.parametrize("state", ["failed", "running"])
def test_a_run_that_left_something_keeps_its_folder(tmp_path: Path, kept: str, state: str) -> None:
    run = RunDir.create(tmp_path, "a")
    run.status.write_text(json.dumps({"state": state, "pid": 1, "host": "elsewhere", "heartbeat": 0.0}))
    if state == "failed":
        (run.path / kept).write_text("{}\n")
    with pytest.raises(RunError, match="already holds a run"):
        RunDir.create(tmp_path, "a")


def test_of_two_that_want_a_failed_run_s_folder_one_gets_it(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "a")
    run.status.write_text('{"state": "failed"}')
    quicker, slower = RunDir(run.path), RunDir(run.path)
    RunDir.create(tmp_path, "a")
    assert not quicker.was_stillborn
    with pytest.raises(RunError, match="already holds a run"):
        slower._put_aside()  # it had looked before the other was through
    assert run.status.exists(), "the other's claim is given back"


def test_notices_reach_the_terminal_and_train_log_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is said before there is a folder is in train.log all the same, under --quiet too."""
    weights = tmp_path / "x.pth"
    state = {k: v for k, v in LineTask(line_config(tmp_path)).build_model().state_dict().items() if k != "2.bias"}
    torch.save({**state, "mean": torch.zeros(3), "std": torch.ones(3)}, weights)
    for name, quiet in (("a", False), ("b", True)):
        config = line_config(tmp_path, experiment_name=name, model={"sam_checkpoint": "sam.pth"},
                             training__num_epochs=1, training__empty_cache_freq=1)  # fmt: skip
        run_training(config, init_from=str(weights), task_factory=Prepared, quiet=quiet)
        said, log = capsys.readouterr().err, (tmp_path / name / "train.log").read_text()
        for line in (
            "3 of the network's 4 tensors come from",
            "model.sam_checkpoint is accepted and never read",
            "has no cache to empty",
        ):
            assert log.count(line) == 1
            assert said.count(line) == (0 if quiet else 1)


def test_a_dry_run_says_what_differs_and_tries_the_checkpoint_s_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(line_config(tmp_path, experiment_name="a", training__num_epochs=6))
    latest = tmp_path / "a" / "checkpoints" / "checkpoint_latest.pth"
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    config = line_config(tmp_path, optimizer__lr=1e-9, model={"sam_checkpoint": "sam.pth"}, training__num_epochs=9)
    result = run_training(config, resume=str(latest), task_factory=Prepared, dry_run=True)
    said = capsys.readouterr().err
    assert "optimizer.lr: 0.01 (checkpoint) -> 1e-09" in said
    assert "model.sam_checkpoint is accepted and never read" in said
    trained = json.loads((tmp_path / "a" / "training_history.json").read_text())["val/total_loss"][-1]
    assert result.metrics["val/total_loss"] == pytest.approx(trained, rel=1e-3)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
