"""The real light network on workers: weights, metrics and evaluation are those of one process."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import farm_config, write_farm

from cabruca.config.schema import Config
from cabruca.distributed.ray_train import train_on_workers
from cabruca.launch import evaluate
from cabruca.run import run_training
from cabruca.train import checkpoint
from cabruca.train.protocols import State, TrainResult

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500), pytest.mark.usefixtures("cluster")]

FINE = {"training.precision": "fp64", "data.windows_per_epoch": 6, "training.num_epochs": 2}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_farm(tmp_path_factory.mktemp("farm"))


def run(farm: Path, out: Path, name: str, changes: dict[str, Any], workers: int = 1) -> tuple[TrainResult, State]:
    own = {"experiment_name": name, "distributed.num_workers": workers, **changes}
    config: Config = farm_config(farm, out, own)
    result = (run_training if workers == 1 else train_on_workers)(config, quiet=True)
    return result, checkpoint.read(out / name / "checkpoints" / "checkpoint_latest.pth")


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k.startswith(("train/", "val/")) and not math.isnan(v)}


def test_two_workers_give_the_weights_and_metrics_of_one_process(farm: Path, tmp_path: Path) -> None:
    alone, ours = run(farm, tmp_path, "alone", FINE), run(farm, tmp_path, "many", FINE, workers=2)
    weights = {k: v for k, v in alone[1]["model"].items() if v.is_floating_point()}
    assert next(iter(weights.values())).dtype == torch.float64
    torch.testing.assert_close({k: ours[1]["model"][k] for k in weights}, weights, rtol=1e-8, atol=1e-8)
    expected, found = numbers(alone[0].metrics), numbers(ours[0].metrics)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-7, abs=1e-7), name


def test_in_fp32_the_validation_agrees_within_the_spread_over_seeds(farm: Path, tmp_path: Path) -> None:
    settings = {"data.windows_per_epoch": 6, "training.num_epochs": 2}
    losses = [
        run(farm, tmp_path, f"seed{seed}", {**settings, "training.seed": seed})[0].metrics["val/total_loss"]
        for seed in (0, 1, 2)
    ]
    ours = run(farm, tmp_path, "many", {**settings, "training.seed": 0}, workers=2)[0].metrics["val/total_loss"]
    assert abs(ours - losses[0]) <= max(losses) - min(losses)


def test_evaluate_on_workers_gives_the_same_numbers(farm: Path, tmp_path: Path) -> None:
    """Three pictures on two workers: nothing is counted twice."""
    run(farm, tmp_path, "alone", FINE)
    path = tmp_path / "alone" / "checkpoints" / "checkpoint_latest.pth"
    alone = evaluate(path, farm / "images", farm / "farm.json")
    ours = evaluate(path, farm / "images", farm / "farm.json", workers=2)
    assert ours.keys() == alone.keys()
    for name, value in alone.items():
        assert ours[name] == (None if value is None else pytest.approx(value, rel=1e-9)), name
