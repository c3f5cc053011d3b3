"""Faults 1, 2, 6, 16 and 17 of the predecessor: each check is green on ours and red with the fault put back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from run_helpers import LineTask, line_config, rows

from cabruca.config.load import load_config
from cabruca.run import run_training
from cabruca.tracking import resume as resume_module
from cabruca.tracking import trackers as trackers_module
from cabruca.tracking.history import History, row_of
from cabruca.tracking.mlflow import MLflowTracker
from cabruca.tracking.reporter import LocalReporter
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.scalars import finite
from cabruca.tracking.wandb import WandbTracker
from cabruca.train import checkpoint
from cabruca.train.protocols import BaseCallback, Record, TrainResult

Check = Callable[[Path], None]


def red(check: Check, tmp_path: Path) -> None:
    """The check must fail, by an assertion of its own."""
    with pytest.raises(AssertionError):
        check(tmp_path)


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """results.png has its own test; here it would be most of the time."""
    monkeypatch.setattr(trackers_module, "ResultsPlot", lambda *_: BaseCallback())


class FakeMlflow:
    """Stands in for MlflowClient; one server for all runs of a test."""

    def __init__(self) -> None:
        self.experiments: list[str] = []
        self.runs: list[str] = []
        self.points: list[tuple[str, str, int]] = []

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id=name) if name in self.experiments else None

    def create_experiment(self, name: str, location: str | None = None) -> str:
        self.experiments.append(name)
        return name

    def create_run(self, experiment_id: str, run_name: str, tags: dict[str, str]) -> Any:
        self.runs.append(run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name), data=SimpleNamespace(params={}))

    def set_terminated(self, run_id: str, status: str) -> None: ...
    def log_artifact(self, run_id: str, path: str) -> None: ...

    def log_batch(self, run_id: str, *, params: Any = (), metrics: Any = ()) -> None:
        self.points += [(run_id, m.key, m.step) for m in metrics]


class FakeWandb:
    """Stands in for the wandb module and its run."""

    Image = staticmethod(lambda rgb: rgb)
    Settings = staticmethod(lambda **_: None)
    dir = ""
    offline = False

    def __init__(self) -> None:
        self.names: list[str] = []
        self.points: list[tuple[str, int]] = []

    def init(self, *, name: str, **_: Any) -> FakeWandb:
        self.names.append(name)
        return self

    def log(self, values: dict[str, Any], *, step: int) -> None:
        self.points += [(key, step) for key in values]

    def finish(self, **_: Any) -> None: ...


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeMlflow, FakeWandb]:
    mlflow, wandb = FakeMlflow(), FakeWandb()

    def make_mlflow(run_dir: RunDir, config: Any) -> MLflowTracker:
        tracker = MLflowTracker(run_dir, config)
        tracker._client_of = lambda **_: mlflow  # type: ignore[assignment]
        return tracker

    def make_wandb(run_dir: RunDir, config: Any) -> WandbTracker:
        tracker = WandbTracker(run_dir, config)
        tracker._wandb = wandb  # type: ignore[assignment]
        return tracker

    monkeypatch.setitem(trackers_module.TRACKERS, "mlflow", make_mlflow)
    monkeypatch.setitem(trackers_module.TRACKERS, "wandb", make_wandb)
    return mlflow, wandb


def _run(tmp_path: Path, name: str | None, **dotted: Any) -> TrainResult:
    config = line_config(tmp_path, experiment_name=name, tracking={"mlflow": True, "wandb": True}, **dotted)
    return run_training(config, task_factory=LineTask, quiet=True)


# 1: the experiment name never reached the output folder, MLflow or W&B


@pytest.fixture
def check_name(servers: tuple[FakeMlflow, FakeWandb]) -> Check:
    def check(tmp_path: Path) -> None:
        _run(tmp_path, "plot_7", training__num_epochs=1)
        assert (tmp_path / "plot_7" / "status.json").is_file()
        assert servers[0].runs == ["plot_7"]
        assert servers[1].names == ["plot_7"]

    return check


def test_fault_1_the_name_reaches_folder_and_trackers(check_name: Check, tmp_path: Path) -> None:
    check_name(tmp_path)


@pytest.mark.parametrize("where", ["folder", "mlflow", "wandb"])
def test_fault_1_is_shown(check_name: Check, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "folder":
        create = RunDir.create
        monkeypatch.setattr(RunDir, "create", lambda output_dir, name: create(output_dir, None))
    else:
        tracker = {"mlflow": MLflowTracker, "wandb": WandbTracker}[where]
        start = tracker.on_start

        def nameless(self: Any, info: Any) -> None:
            self._run_dir = SimpleNamespace(path=self._run_dir.path, name="cabruca", config_yaml=Path("none"))
            start(self, info)

        monkeypatch.setattr(tracker, "on_start", nameless)
    red(check_name, tmp_path)


# 2: training_history.json was written once, after the last epoch


class Visitor(BaseCallback):
    """Looks into the folder while the run goes on, as a monitor does."""

    def __init__(self, history: Path) -> None:
        self.history = history
        self.epochs_seen: list[int] = []

    def on_step(self, record: Record) -> None:
        if record.step % 6 == 1 and record.epoch:
            there = json.loads(self.history.read_text())["epoch"] if self.history.is_file() else []
            self.epochs_seen.append(len(there))


def check_live_history(tmp_path: Path) -> None:
    visitor = Visitor(tmp_path / "a" / "training_history.json")
    config = line_config(tmp_path, experiment_name="a", training__num_epochs=4)
    run_training(config, task_factory=LineTask, quiet=True, callbacks=[visitor])
    assert visitor.epochs_seen == [1, 2, 3]
    assert len(json.loads(visitor.history.read_text())["val/mAP_50"]) == 4


def test_fault_2_history_is_there_after_every_epoch(tmp_path: Path) -> None:
    check_live_history(tmp_path)


def test_fault_2_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = LocalReporter.finish

    def keep(self: History, record: Record) -> None:
        self._epochs.append(row_of(record))

    def at_the_end(self: LocalReporter, *how: Any) -> None:
        self._history._rewrite()
        finish(self, *how)

    monkeypatch.setattr(History, "append_epoch", keep)
    monkeypatch.setattr(LocalReporter, "finish", at_the_end)
    red(check_live_history, tmp_path)


# 6: stage two restored optimizer, schedule and epoch, so that --lr and a small --epochs were undone


def check_two_stages(tmp_path: Path) -> None:
    """The predecessor's recipe, with its flags: stage two is fresh but for the weights."""
    stored = line_config(tmp_path, training__save_frequency=0, training__log_interval=1)
    file = tmp_path / "training_config.yaml"
    file.write_text(json.dumps(stored.model_dump(mode="json", exclude_unset=True)))
    one = {"experiment_name": "stage1_256", "training.num_epochs": 6}
    run_training(load_config(file, one), task_factory=LineTask, quiet=True, explicit=one)
    best = tmp_path / "stage1_256" / "checkpoints" / "checkpoint_best.pth"
    two = {"experiment_name": "stage2_512", "optimizer.lr": 1e-12, "training.num_epochs": 2}
    result = run_training(load_config(file, two), resume=str(best), task_factory=LineTask, quiet=True, explicit=two)
    assert result.epochs == 2
    done = rows(tmp_path / "stage2_512" / "metrics.jsonl")
    assert {row["stage"] for row in done} == {1}
    assert done[0]["step"] == 1
    assert done[0]["lr/default"] == pytest.approx(1e-12)
    latest = checkpoint.read(tmp_path / "stage2_512" / "checkpoints" / "checkpoint_latest.pth")
    assert (latest["epoch"], latest["step"], latest["stage"]) == (2, 12, 1)
    # the rate is so small that the weights are still those of stage one: they came in
    for name, weight in checkpoint.read(best)["model"].items():
        assert torch.allclose(latest["model"][name], weight, atol=1e-6)
    assert checkpoint.read(best)["stage"] == 0  # stage one is untouched


def test_fault_6_stage_two_keeps_its_rate_and_its_epochs(tmp_path: Path) -> None:
    check_two_stages(tmp_path)


@pytest.mark.parametrize("restored", [("optimizer", "scheduler", "epoch", "step"), ("epoch",), ("best", "step")])
def test_fault_6_is_shown(tmp_path: Path, restored: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    plan_stage = resume_module._plan_stage

    def whole(path: Path, state: Any, config: Any, explicit: Any) -> Any:
        plan = plan_stage(path, state, config, explicit)
        assert plan.state is not None
        plan.state.update({key: state[key] for key in restored})
        return plan

    monkeypatch.setattr(resume_module, "_plan_stage", whole)
    red(check_two_stages, tmp_path)


# 16: trackers got two step counters in one run; each MLflow run was its own experiment


@pytest.fixture
def check_counter(servers: tuple[FakeMlflow, FakeWandb]) -> Check:
    def check(tmp_path: Path) -> None:
        for name in ("a", "b"):
            _run(tmp_path, name, training__num_epochs=2)
        mlflow, wandb = servers
        assert mlflow.experiments == ["cabruca"]
        assert mlflow.runs == ["a", "b"]
        written = rows(tmp_path / "a" / "metrics.jsonl")
        epochs = [row["step"] for row in written if "val/mAP_50" in row]
        assert [step for run, key, step in mlflow.points if (run, key) == ("a", "val/mAP_50")] == epochs
        steps = [row["step"] for row in written if "val/mAP_50" not in row]
        assert [step for run, key, step in mlflow.points if (run, key) == ("a", "step/total_loss")] == steps
        for key, expected in (("val/mAP_50", epochs), ("step/total_loss", steps)):
            assert [step for name, step in wandb.points if name == key] == expected * 2

    return check


def test_fault_16_one_step_counter_and_one_experiment(check_counter: Check, tmp_path: Path) -> None:
    check_counter(tmp_path)


@pytest.mark.parametrize("fault", ["epochs count in MLflow", "epochs count in W&B", "an experiment a run"])
def test_fault_16_is_shown(check_counter: Check, tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "epochs count in MLflow":
        monkeypatch.setattr(
            MLflowTracker, "on_epoch", lambda self, record: self._send_metrics(finite(record), record.epoch)
        )
    elif fault == "epochs count in W&B":
        monkeypatch.setattr(
            WandbTracker, "on_epoch", lambda self, record: self._run.log(finite(record), step=record.epoch)
        )
    else:
        monkeypatch.setattr(FakeMlflow, "get_experiment_by_name", lambda self, name: None)
    red(check_counter, tmp_path)


# 17: config.yaml was promised in the output folder and never written


def check_config_yaml(tmp_path: Path) -> None:
    config = line_config(tmp_path, training__num_epochs=1, tracking={"mlflow_uri": "http://me:hunter2@host"})
    result = run_training(config, task_factory=LineTask, quiet=True)
    (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
    assert (folder / "config.yaml").is_file()
    again = load_config(folder / "config.yaml")  # resolved: every default is in it, and it loads
    assert again.training == config.training
    assert again.experiment_name == folder.name
    assert "T_max" in (folder / "config.yaml").read_text()
    assert "hunter2" not in "".join(p.read_text() for p in folder.iterdir() if p.is_file())
    assert result.state == "finished"


def test_fault_17_config_yaml_is_written(tmp_path: Path) -> None:
    check_config_yaml(tmp_path)


def test_fault_17_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabruca.run.write_facts", lambda *_: None)
    red(check_config_yaml, tmp_path)
