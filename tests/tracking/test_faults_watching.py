"""Faults 3 and 13 of the predecessor: each check is green on ours and red with the fault put back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from run_helpers import LineTask, line_config, rows
from tracker_reading import mlflow_points, mlflow_runs, sqlite_uri

from cabruca.run import run_training
from cabruca.tracking import mlflow as mlflow_module
from cabruca.tracking.history import read_rows
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import read_status

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


# 3: the dashboard unpickled the whole newest checkpoint at each refresh to show epoch and metric

Look = Callable[[RunDir], tuple[int, float]]


def look(run: RunDir) -> tuple[int, float]:
    """Epoch and metric of the newest checkpoint, as a dashboard shows them; state and rows as well."""
    beside = json.loads(run.latest.with_suffix(".json").read_text())
    status = read_status(run.status) or {}
    last = list(read_rows(run.metrics))[-1]
    assert (status["state"], status["epoch"]) == ("finished", last["epoch"])
    assert last["val/mAP_50"] == beside["metric"]
    return beside["epoch"], beside["metric"]


def look_into_the_checkpoint(run: RunDir) -> tuple[int, float]:
    state = torch.load(run.latest, weights_only=True)
    return state["epoch"], state["best"]["value"]


def check_look(tmp_path: Path, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dashboard shows is there although the checkpoint can neither be opened nor be unpickled."""
    result = run_training(line_config(tmp_path, experiment_name="a"), task_factory=LineTask, quiet=True)
    run = RunDir(tmp_path / "a")
    opened: list[str] = []
    monkeypatch.setattr(torch, "load", lambda path, **_: opened.append(str(path)) or {"epoch": 0, "best": {"value": 0}})
    run.latest.write_bytes(b"")
    assert look(run) == (3, result.metrics["val/mAP_50"])
    assert opened == []


def test_fault_3_epoch_and_metric_are_read_without_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_look(tmp_path, look, monkeypatch)


def test_fault_3_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        check_look(tmp_path, look_into_the_checkpoint, monkeypatch)


# 13: MLflow used file:./mlruns, which current MLflow refuses


def check_default_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With the predecessor's configuration, and with no address at all, the metrics are in a data base that opens."""
    for name, tracking in (("a", {"mlflow_uri": "file:./mlruns"}), ("b", {})):
        config = line_config(
            tmp_path, experiment_name=name, tracking={"mlflow": True, "tensorboard": False, **tracking}
        )
        run_training(config, task_factory=LineTask, quiet=True)
    runs = mlflow_runs(sqlite_uri(tmp_path))
    assert [run.info.run_name for run in runs] == ["a", "b"]
    for run in runs:
        written = rows(tmp_path / str(run.info.run_name) / "metrics.jsonl")
        expected = [(r["step"], r["val/mAP_50"]) for r in written if "val/mAP_50" in r]
        assert mlflow_points(sqlite_uri(tmp_path), run, "val/mAP_50") == expected
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "'file:./mlruns' is a folder, which MLflow 3 does not write any more" in warning
    assert "set tracking.mlflow_uri to sqlite:///... or to a server's address" in warning
    assert not (tmp_path / "mlruns").exists()


def test_fault_13_mlflow_writes_into_a_data_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    check_default_store(tmp_path, caplog)


def test_fault_13_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlflow_module, "tracking_uri", lambda *_: "file:./mlruns")
    with pytest.raises(AssertionError):
        check_default_store(tmp_path, caplog)
    assert any("switched off" in r.getMessage() for r in caplog.records), "MLflow itself refuses the address"
