"""The real light network under torch.compile: the same losses, and checkpoints that know nothing of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import farm_config, write_farm
from memory_reporter import MemoryReporter

from cabruca.evaluation import evaluate
from cabruca.run import run_training
from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask
from cabruca.train import compiling
from cabruca.train.loop import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here"),
]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_farm(tmp_path_factory.mktemp("farm"), pictures=2)


def prefer_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine measures."""
    real = compiling._measured

    def measured(*arguments: Any) -> tuple[float, float] | None:
        return None if real(*arguments) is None else (1.0, 2.0)

    monkeypatch.setattr(compiling, "_measured", measured)
    monkeypatch.setattr(compiling, "STEPS", 2)


def test_the_compiled_parts_learn_the_same(farm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One optimizer step in fp64: the compiler may only reorder sums."""
    prefer_compiled(monkeypatch)
    changes = {"training.precision": "fp64", "training.num_epochs": 1, "data.windows_per_epoch": 2}
    states = []
    for compiled in (False, True):
        torch.compiler.reset()
        config = farm_config(farm, farm, {**changes, "training.compile": compiled})
        reporter = MemoryReporter()
        train(config, CabrucaTask(config), runtime=Runtime.single(), reporter=reporter)
        states.append(reporter.state)
    plain, compiled = states
    assert compiled["compiled"] is True
    assert list(compiled["model"]) == list(plain["model"])
    torch.testing.assert_close(compiled["model"], plain["model"], rtol=1e-7, atol=1e-8)


def test_fault_11_evaluate_reads_a_compiled_run(farm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefer_compiled(monkeypatch)
    torch.compiler.reset()
    changes = {"experiment_name": "c", "training.compile": True, "training.num_epochs": 1, "data.windows_per_epoch": 2}
    run_training(farm_config(farm, tmp_path, changes), quiet=True)
    found = evaluate(tmp_path / "c" / "checkpoints" / "checkpoint_best.pth", farm / "images", farm / "farm.json")
    row = json.loads((tmp_path / "c" / "metrics.jsonl").read_text().splitlines()[-1])
    assert found["total_loss"] == pytest.approx(row["val/total_loss"], abs=1e-5)
    assert "goes on with it" in (tmp_path / "c" / "train.log").read_text()
