"""MLflow against a real server on 127.0.0.1: everything arrives; its death in the middle costs one warning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import MLflowServer
from run_helpers import LineTask, line_config, rows
from tracker_reading import mlflow_client, mlflow_files, mlflow_points, mlflow_runs

from cabruca.run import run_training
from cabruca.tracking.status import read_status
from cabruca.train.protocols import BaseCallback, Record

pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    running = MLflowServer(tmp_path_factory.mktemp("server"))
    try:
        running.wait()
        yield running
    finally:
        running.kill()


def test_a_remote_server_gets_parameters_metrics_files_and_the_best_checkpoint(
    server: MLflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLFLOW_TRACKING_URI wins over the configuration; two runs are one experiment."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    tracking = {"mlflow": True, "mlflow_experiment": "plots", "mlflow_uri": "http://127.0.0.1:9", "tensorboard": False}
    best = {}
    for name in ("a", "b"):
        config = line_config(tmp_path, experiment_name=name, tracking=tracking, training__num_epochs=2)
        best[name] = run_training(config, task_factory=LineTask, quiet=True).best
    assert not (tmp_path / "mlflow.db").exists()
    runs = mlflow_runs(server.uri, "plots")
    assert [(r.info.run_name, r.info.status) for r in runs] == [("a", "FINISHED"), ("b", "FINISHED")]
    for run in runs:
        name = run.info.run_name
        assert run.data.params["tracking.mlflow_experiment"] == "plots"
        assert run.data.params["optimizer.lr"] == "0.01"
        written = [r for r in rows(tmp_path / name / "metrics.jsonl") if "val/mAP_50" in r]
        for metric in ("val/mAP_50", "system/process_rss_mb"):
            expected = [(r["step"], r[metric]) for r in written]
            assert set(expected) <= set(mlflow_points(server.uri, run, metric))
        assert mlflow_points(server.uri, run, "best/val_mAP_50") == [(12, best[name])]
        files = mlflow_files(server.uri, run)
        assert files >= {
            *("config.yaml", "environment.json", "metrics.jsonl", "training_history.json", "train.log"),
            *("plots/results.png", "predictions/val_line_1.png"),
            *("checkpoints/checkpoint_best.pth", "checkpoints/checkpoint_best.json"),
        }
        assert files.isdisjoint({"checkpoints/checkpoint_latest.pth"})
    sent = mlflow_client(server.uri).download_artifacts(
        runs[0].info.run_id, "checkpoints/checkpoint_best.pth", str(tmp_path)
    )
    assert Path(sent).read_bytes() == (tmp_path / "a" / "checkpoints" / "checkpoint_best.pth").read_bytes()


class KillInTheMiddle(BaseCallback):
    """Ends the server after the first epoch."""

    def __init__(self, server: MLflowServer) -> None:
        self.server = server

    def on_epoch(self, record: Record) -> None:
        self.server.kill()


def test_a_server_that_dies_in_the_middle_costs_one_warning(
    server: MLflowServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last test of this file: the server is dead afterwards."""
    good = run_training(line_config(tmp_path, experiment_name="good"), task_factory=LineTask, quiet=True)
    config = line_config(tmp_path, experiment_name="a", tracking__mlflow=True, tracking__mlflow_uri=server.uri)
    result = run_training(config, task_factory=LineTask, quiet=True, callbacks=[KillInTheMiddle(server)])
    assert (result.state, result.best) == ("finished", good.best)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("tracker mlflow is switched off for this run (")
    assert len([r for r in rows(tmp_path / "a" / "metrics.jsonl") if "val/mAP_50" in r]) == 3
    assert (read_status(tmp_path / "a" / "status.json") or {})["state"] == "finished"
