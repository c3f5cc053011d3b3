"""TensorBoard, MLflow, W&B, pictures: what they hold after a run, and what a bad one costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import LineTask, line_config, rows
from tracker_reading import mlflow_points, mlflow_runs, sqlite_uri, tensorboard_points

from cabruca.run import run_training
from cabruca.tracking import mlflow_client
from cabruca.tracking.mlflow import tracking_uri
from cabruca.tracking.pictures import PictureWriter
from cabruca.tracking.plots import draw
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.trackers import TRACKERS, trackers_of
from cabruca.tracking.wandb import WandbTracker
from cabruca.train.protocols import BaseCallback, Picture, Record, RunInfo, TrainResult

INFO = RunInfo(2, 3, 4, 4, "cpu", "fp32", 10, 0, 0, {"optimizer": {"lr": 0.1}, "experiment_name": "x"})
RESULT = TrainResult("finished", 1, 1, None, None, {}, "done")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        os.environ.pop(name)


def test_tensorboard_has_scalars_rates_and_pictures(tmp_path: Path) -> None:
    run_training(line_config(tmp_path, experiment_name="a", tracking={}), task_factory=LineTask, quiet=True)
    points = tensorboard_points(tmp_path / "a" / "tensorboard")
    epochs = [r for r in rows(tmp_path / "a" / "metrics.jsonl") if "val/mAP_50" in r]
    assert [s for s, _ in points["val/mAP_50"]] == [6, 12, 18]
    np.testing.assert_allclose([v for _, v in points["val/mAP_50"]], [r["val/mAP_50"] for r in epochs], rtol=1e-6)
    assert [s for s, _ in points["step/total_loss"]] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert [s for s, _ in points["train/total_loss"]] == [6, 12, 18]
    assert any(tag.startswith("lr/") for tag in points)
    assert "val/undefined" not in points


def test_the_flag_switches_tensorboard_off(tmp_path: Path) -> None:
    run_training(line_config(tmp_path, experiment_name="a"), task_factory=LineTask, quiet=True)
    assert not (tmp_path / "a" / "tensorboard").exists()


def test_a_resumed_run_goes_on_in_its_mlflow_run(tmp_path: Path) -> None:
    one = line_config(tmp_path, experiment_name="a", training__num_epochs=1, tracking__mlflow=True)
    run_training(one, task_factory=LineTask, quiet=True)
    more = line_config(tmp_path, experiment_name="a", training__num_epochs=2, tracking__mlflow=True)
    run_training(more, resume="auto", task_factory=LineTask, quiet=True)
    (run,) = mlflow_runs(sqlite_uri(tmp_path))
    assert run.info.run_name == "a"
    assert run.info.status == "FINISHED"
    assert [step for step, _ in mlflow_points(sqlite_uri(tmp_path), run, "val/mAP_50")] == [6, 12]
    assert run.data.params["optimizer.lr"] == "0.01"
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert tmp_path in folder.parents  # not ./mlruns
    assert "mAP_50" in (folder / "config.yaml").read_text()


class Interrupting(BaseCallback):
    """A scheduler's SIGTERM in the second epoch."""

    def on_step(self, record: Record) -> None:
        if record.step == 8:
            os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupted_run_sends_nothing_large(tmp_path: Path) -> None:
    """Its end has seconds; the run that goes on sends the files."""
    config = line_config(tmp_path, experiment_name="a", tracking__mlflow=True)
    stopped = run_training(config, task_factory=LineTask, quiet=True, callbacks=[Interrupting()])
    assert stopped.exit_code == 143
    (run,) = mlflow_runs(sqlite_uri(tmp_path))
    assert run.info.status == "KILLED"
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"config.yaml"}
    run_training(config, resume="auto", task_factory=LineTask, quiet=True)
    assert (folder / "checkpoints" / "checkpoint_best.pth").is_file()
    (run,) = mlflow_runs(sqlite_uri(tmp_path))
    assert run.info.status == "FINISHED"


def test_where_mlflow_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    run = RunDir(tmp_path / "a")
    local = f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri(run, line_config(tmp_path)) == local
    server = line_config(tmp_path, tracking__mlflow_uri="http://host:5000")
    assert tracking_uri(run, server) == "http://host:5000"
    assert caplog.records == []
    assert tracking_uri(run, line_config(tmp_path, tracking__mlflow_uri="file:./mlruns")) == local
    (warning,) = caplog.records
    assert "file:./mlruns" in warning.getMessage()
    assert "set tracking.mlflow_uri to sqlite" in warning.getMessage()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:1")
    assert tracking_uri(run, server) == "http://other:1"


@pytest.mark.parametrize("kind", ["dead", "mute"])
def test_a_bad_mlflow_server_costs_one_warning_and_seconds(
    tmp_path: Path, kind: str, mute_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import mlflow  # noqa: F401  the import's seconds are not the server's

    monkeypatch.setitem(mlflow_client.QUICK, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    good = run_training(line_config(tmp_path, experiment_name="good"), task_factory=LineTask, quiet=True)
    uri = "http://127.0.0.1:9" if kind == "dead" else mute_server
    config = line_config(tmp_path, experiment_name="bad", tracking__mlflow=True, tracking__mlflow_uri=uri)
    began = time.monotonic()
    result = run_training(config, task_factory=LineTask, quiet=True)
    assert time.monotonic() - began < 15
    assert result.state == "finished"
    assert result.best == good.best
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("tracker mlflow is switched off for this run (")


WANDB_SCRIPT = """
import sys
from run_helpers import LineTask, line_config
from cabruca.run import run_training
run_training(line_config(sys.argv[1], experiment_name="a", tracking__wandb=True), task_factory=LineTask)
"""


@pytest.mark.parametrize(
    "environment",
    [
        {"WANDB_MODE": "offline"},
        {"WANDB_MODE": "unset", "WANDB_API_KEY": "unset", "NETRC": "unset"},
    ],
    ids=["asked for", "no key"],
)
def test_wandb_offline_leaves_a_run_and_says_how_to_send_it(tmp_path: Path, environment: dict[str, str]) -> None:
    """Without a key and without a word on the mode, offline is what works: said once, nothing is lost."""
    env = {**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[1]), "HOME": str(tmp_path)}
    env = {name: value for name, value in env.items() if value != "unset"}
    done = subprocess.run(
        [sys.executable, "-c", WANDB_SCRIPT, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "a" / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))
    assert done.stderr.count(f"wandb sync {folder}") == 1
    assert done.stderr.count("no API key: this run is kept offline") == (environment["WANDB_MODE"] == "unset")
    assert "switched off" not in done.stderr
    assert "Traceback" not in done.stderr
    assert {p.name for p in tmp_path.iterdir() if not p.name.startswith(".")} == {"a"}


def test_wandb_without_a_key_does_not_ask_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("NETRC", raising=False)
    tracker = WandbTracker(RunDir(tmp_path), line_config(tmp_path))
    with pytest.raises(RuntimeError, match=r"wandb login.*WANDB_MODE=offline"):
        tracker.on_start(INFO)


def test_the_registry_s_names_are_the_configuration_s_switches(tmp_path: Path) -> None:
    tracking = line_config(tmp_path).tracking
    assert all(isinstance(getattr(tracking, name), bool) for name in TRACKERS)
    bare = line_config(tmp_path, validation__save_predictions=False)
    names = [t.name for t in trackers_of(RunDir(tmp_path), bare)]  # type: ignore[attr-defined]
    assert names == ["results plot", "charts", "model card"]
    full = line_config(tmp_path, tracking={"mlflow": True, "wandb": True})
    names = [t.name for t in trackers_of(RunDir(tmp_path), full)]  # type: ignore[attr-defined]
    drawn = ["pictures", "results plot", "charts", "model card"]
    assert names == [*drawn, "tensorboard", "mlflow", "wandb"]  # who sends files is last


def test_pictures_are_those_of_the_newest_validation(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "a")
    writer = PictureWriter(run, line_config(tmp_path))
    for shade in (10, 200):
        rgb = np.full((4, 6, 3), shade, dtype=np.uint8)
        writer.on_validation(Record(1, 1, {}, pictures=[Picture("a:b/../c 1", rgb)]))
    (file,) = run.predictions.iterdir()
    assert file.name == "val_a_b_.._c_1.png"
    with Image.open(file) as image:
        assert image.size == (6, 4)
        assert image.getpixel((0, 0)) == (200, 200, 200)


def test_results_png_is_a_picture_of_the_whole_run(tmp_path: Path) -> None:
    run_training(line_config(tmp_path, experiment_name="a"), task_factory=LineTask, quiet=True)
    with Image.open(tmp_path / "a" / "plots" / "results.png") as image:
        assert image.width > 1000
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_a_plot_survives_a_history_full_of_gaps() -> None:
    history = json.loads('{"epoch": [1, 2], "step": [3, 6], "train/total_loss": [1, null], "val/mAP": [null, null]}')
    assert draw(history, "val/mAP_50").startswith(b"\x89PNG")
