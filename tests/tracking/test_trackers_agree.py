"""All three trackers at once, the real libraries: the same numbers at the same steps, and what W&B keeps offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from run_helpers import LineTask, line_config, rows
from tracker_reading import (
    mlflow_points,
    mlflow_runs,
    sqlite_uri,
    tensorboard_points,
    wandb_points,
    wandb_records,
)

from cabruca.run import run_training
from cabruca.tracking.mlflow import MLflowTracker
from cabruca.tracking.tensorboard import TensorBoardTracker
from cabruca.tracking.wandb import WandbTracker
from cabruca.train.protocols import Record

ALL = {"tensorboard": True, "mlflow": True, "wandb": True}


pytestmark = pytest.mark.usefixtures("no_mlflow_settings")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run of three epochs, stopped after the second and gone on with, seen by all three."""
    folder, before = tmp_path_factory.mktemp("watched"), set(os.environ)
    for epochs in (2, 3):
        config = line_config(folder, experiment_name="a", tracking=ALL, training__num_epochs=epochs)
        run_training(config, resume="auto", task_factory=LineTask, quiet=True)
    for name in set(os.environ) - before:
        os.environ.pop(name)
    return folder


def wandb_files(watched: Path) -> list[Path]:
    return sorted((watched / "a" / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.parametrize("name", ["val/mAP_50", "train/total_loss", "time/images_per_s", "system/process_rss_mb"])
def test_an_epoch_s_numbers_are_the_same_everywhere(watched: Path, name: str) -> None:
    expected = [(r["step"], r[name]) for r in rows(watched / "a" / "metrics.jsonl") if "val/mAP_50" in r]
    assert [step for step, _ in expected] == [6, 12, 18]
    (run,) = mlflow_runs(sqlite_uri(watched))
    by_wandb = [point for file in wandb_files(watched) for point in wandb_points(file)[name]]
    by_tensorboard = tensorboard_points(watched / "a" / "tensorboard")[name]
    for found in (mlflow_points(sqlite_uri(watched), run, name), by_wandb, by_tensorboard):
        assert [step for step, _ in found] == [6, 12, 18]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-5)


@pytest.mark.parametrize("name", ["step/total_loss", "lr/heads"])
def test_a_step_s_numbers_are_the_same_everywhere(watched: Path, name: str) -> None:
    written = {r["step"]: r.get(name.replace("step/", "train/")) for r in rows(watched / "a" / "metrics.jsonl")}
    (run,) = mlflow_runs(sqlite_uri(watched))
    by_wandb = [point for file in wandb_files(watched) for point in wandb_points(file).get(name, [])]
    by_tensorboard = tensorboard_points(watched / "a" / "tensorboard").get(name, [])
    by_mlflow = mlflow_points(sqlite_uri(watched), run, name)
    steps = sorted({step for step, _ in by_mlflow})
    assert steps == ([2, 4, 6, 8, 10, 12, 14, 16, 18] if name.startswith("step/") else steps)
    assert sorted({step for step, _ in by_wandb}) == sorted({step for step, _ in by_tensorboard}) == steps
    assert set(steps) <= set(written)


def test_the_run_has_one_name_and_one_id_in_wandb(watched: Path) -> None:
    """Offline too, the parts of a resumed run belong together; configuration, pictures and best value are in them."""
    files = wandb_files(watched)
    assert len(files) == 2
    runs = [record.run for file in files for record in wandb_records(file) if record.HasField("run")]
    assert len({run.run_id for run in runs}) == 1
    assert {(run.display_name, run.project) for run in runs} == {("a", "cabruca")}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["optimizer"]["lr"] == 0.01
    pictures = (watched / "a" / "wandb").glob("offline-run-*/files/media/images/val/line 1_*.png")
    assert sorted(int(p.stem.split("_")[-2]) for p in pictures) == [6, 12, 18]
    best = json.loads((watched / "a" / "checkpoints" / "checkpoint_best.json").read_text())["metric"]
    summaries = [r.summary for r in wandb_records(files[-1]) if r.HasField("summary")]
    last = {item.key or "/".join(item.nested_key): item.value_json for s in summaries for item in s.update}
    assert json.loads(last["best/val_mAP_50"]) == pytest.approx(best)


DEAD_WANDB = """
import sys
from run_helpers import LineTask, line_config
from cabruca.run import run_training
from cabruca.tracking import wandb
wandb.INIT_TIMEOUT_S = 2
tracking = {"wandb": True, "tensorboard": False}
config = line_config(sys.argv[1], experiment_name="a", tracking=tracking)
result = run_training(config, task_factory=LineTask, quiet=True)
print(result.state)
"""


@pytest.mark.slow
def test_a_wandb_that_does_not_answer_costs_one_warning_and_the_run_is_kept(tmp_path: Path) -> None:
    # not the service of this process, which WANDB_SERVICE would name
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "WANDB_MODE": "online"}
    environment |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0123456789" * 4}
    done = subprocess.run(
        [sys.executable, "-c", DEAD_WANDB, str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=tmp_path,
    )
    assert done.stdout.split() == ["finished"], done.stderr
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: W&B cannot take this run (")
    assert warning.endswith("): it is kept offline, to be sent later")
    (file,) = wandb_files(tmp_path)
    assert [step for step, _ in wandb_points(file)["val/mAP_50"]] == [6, 12, 18]
    assert f"wandb sync {file.parent}" in (tmp_path / "a" / "train.log").read_text()


@pytest.mark.parametrize(
    ("tracker", "name"), [(TensorBoardTracker, "tensorboard"), (MLflowTracker, "mlflow"), (WandbTracker, "wandb")]
)
def test_one_that_breaks_in_the_middle_costs_one_warning(
    tracker: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Any, record: Record) -> None:
        assert threading.current_thread().name == f"cabruca-{name}"
        if record.step >= 4:
            raise ConnectionError("the other side is gone")

    good = run_training(line_config(tmp_path, experiment_name="good"), task_factory=LineTask, quiet=True)
    monkeypatch.setattr(tracker, "on_start", lambda *_: None)
    monkeypatch.setattr(tracker, "on_step", broken)
    config = line_config(tmp_path, experiment_name="a", tracking={**dict.fromkeys(ALL, False), name: True})
    result = run_training(config, task_factory=LineTask, quiet=True)
    assert (result.state, result.best) == ("finished", good.best)
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning == (
        f"tracker {name} is switched off for this run (the other side is gone); training goes on, "
        "its records are in metrics.jsonl"
    )
