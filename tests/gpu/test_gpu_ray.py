"""Ray on a GPU: a worker of Ray Train, two trials side by side on one GPU, and one that has too little memory."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from drawn_farm import farm_settings
from predecessor_files import nested

from cabruca.train import checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed here"),
]

TESTS = Path(__file__).resolve().parents[1]


def settings(farm: Path, out: Path, **more: Any) -> dict[str, Any]:
    own = {
        "device": "cuda",
        "model.pretrained": "none",
        "training.precision": "fp64",
        "tracking.system_metrics_s": 0,
        "distributed.dashboard": False,
    }
    return {**farm_settings(farm, out), **own, **more}


def write(path: Path, dotted: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(nested(dotted)))
    return path


def child(*words: str) -> str:
    """A command with a cluster of its own; what it printed."""
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": os.pathsep.join(
            [*map(str, [TESTS.parent, TESTS, TESTS / "support"]), os.environ.get("PYTHONPATH", "")]
        ),
    }
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rows(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if "time/epoch_s" in row]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = checkpoint.read(run / "checkpoints" / "checkpoint_latest.pth")["model"]
    return {name: value for name, value in state.items() if value.is_floating_point()}


def test_a_worker_on_a_gpu_learns_what_one_process_learns(cuda: torch.device, farm: Path, tmp_path: Path) -> None:
    config = write(tmp_path / "farm.yaml", settings(farm, tmp_path / "out", **{"data.windows_per_epoch": 6}))
    common = ["-m", "cabruca", "train", "--config", str(config), "--experiment-name"]
    child(*common, "alone")
    child(*common, "worker", "--workers", "1", "--address", "local")
    run = tmp_path / "out" / "worker"
    log = (run / "train.log").read_text()
    assert "1 GPU, gradients over nccl" in log
    state = checkpoint.read(run / "checkpoints" / "checkpoint_latest.pth")
    assert "cuda" in state["rng"][0], "the worker did not compute on the GPU"
    assert json.loads((run / "environment.json").read_text())["gpu"] == torch.cuda.get_device_name()
    assert all(row["memory/cuda_mb"] > 1 for row in rows(run))
    torch.testing.assert_close(weights(run), weights(tmp_path / "out" / "alone"), rtol=1e-7, atol=1e-7)


def study(folder: Path, farm: Path, **keys: Any) -> Path:
    base = {"training.num_epochs": 12, "data.windows_per_epoch": 12, "training.save_frequency": 0}
    config = write(folder / "base.yaml", settings(farm, folder / "outputs", **base))
    raw: dict[str, Any] = {
        "name": "shared",
        "config": str(config),
        "num_trials": 2,
        "max_concurrent_trials": 2,
        "resources_per_trial": {"cpu": 1, "gpu": 0.5},
        "sampler": {"type": "grid", "seed": 1},
        "scheduler": {"type": "none"},
        **keys,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(raw))
    return folder / "study.yaml"


def test_two_trials_share_a_gpu(cuda: torch.device, farm: Path, tmp_path: Path) -> None:
    file = study(tmp_path, farm, search_space={"optimizer.lr": {"choice": [0.001, 0.0005]}})
    child("-m", "cabruca", "tune", "--study", str(file))
    trials = sorted((tmp_path / "outputs" / "studies" / "shared" / "trials").iterdir())
    assert len(trials) == 2
    spans = []
    for run in trials:
        state = checkpoint.read(run / "checkpoints" / "checkpoint_latest.pth")
        assert state["epoch"] == 12
        assert "cuda" in state["rng"][0], "the trial did not compute on the GPU"
        found = rows(run)
        assert all(row["memory/cuda_mb"] > 1 for row in found)
        spans.append((found[0]["time"], found[-1]["time"]))
    (began, ended), (others_began, others_ended) = spans
    print(f"side by side for {min(ended, others_ended) - max(began, others_began):.1f} s")
    assert max(began, others_began) < min(ended, others_ended), "one waited for the other"


def test_a_trial_that_does_not_fit_fails_alone_with_an_autopsy(cuda: torch.device, farm: Path, tmp_path: Path) -> None:
    """`capped_task.py`: a trial with batches of 48 finds the memory of a small GPU."""
    sizes = {"data.batch_size": {"choice": [48, 2]}}
    own = {"data.tile_size": 128, "data.overlap": 32, "data.windows_per_epoch": 48}
    file = study(tmp_path, farm, search_space=sizes, max_epochs=1, max_concurrent_trials=1, set=own)
    said = child(str(TESTS / "support" / "capped_task.py"), str(file))
    folder = tmp_path / "outputs" / "studies" / "shared" / "trials"
    ends = {}
    for run in sorted(folder.iterdir()):
        batch = yaml.safe_load((run / "config.yaml").read_text())["data"]["batch_size"]
        ends[batch] = (run, json.loads((run / "status.json").read_text())["state"])
    assert {batch: state for batch, (_, state) in ends.items()} == {48: "failed", 2: "finished"}, said
    autopsy = json.loads((ends[48][0] / "autopsy.json").read_text())
    assert autopsy["reason"].startswith("OutOfMemory: out of memory on cuda in optimizer step 1")
    assert "give --batch-size 24 --grad-accum 2" in autopsy["reason"]
