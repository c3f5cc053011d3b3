"""Both presets take a step on the device; so does their benchmark, and what is compiled learns the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import write_farm
from memory_reporter import MemoryReporter
from on_device import CPU, STEPS, floats, furthest, losses, network_on

from cabruca.config.load import load_config
from cabruca.data.synthetic import draw_plot
from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask
from cabruca.train import compiling
from cabruca.train.loop import train

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ("training_config.yaml", "training_config_light.yaml")


@pytest.mark.parametrize("preset", [*PRESETS, None], ids=["standard", "light", "no file"])
def test_a_preset_takes_a_step(device: torch.device, tmp_path: Path, preset: str | None) -> None:
    """Its own network, tile, batch and precision; of its weights none are fetched."""
    files = draw_plot(tmp_path, size_px=768, gsd_m=0.1, seed=0)
    path = None if preset is None else ROOT / "configs" / preset
    given = {
        "data.train_dir": str(files.images_dir),
        "data.val_dir": str(files.images_dir),
        "data.train_annotations": str(files.train_annotations),
        "data.val_annotations": str(files.val_annotations),
        "data.windows_per_epoch": 8,
        "model.pretrained": "none",
        "training.num_epochs": 1,
        "training.log_interval": 1,
        "validation.num_pictures": 0,
    }
    config = load_config(path, given)
    reporter = MemoryReporter()
    train(config, CabrucaTask(config), runtime=Runtime.single(device), reporter=reporter)
    steps = 8 // (config.data.batch_size * config.training.gradient_accumulation_steps)
    assert reporter.state["step"] == steps
    assert all(0 < loss < 100 for loss in losses(reporter))
    assert 0 < reporter.records[0].metrics["val/total_loss"] < 100
    fresh = CabrucaTask(config).build_model().state_dict()
    moved = {name.split(".")[0] for name, w in floats(reporter.state).items() if not torch.equal(w, fresh[name])}
    assert moved == {"backbone", "instance", "semantic", "crown", "density"}


def test_the_speed_of_the_presets_is_measured(cuda: torch.device, tmp_path: Path) -> None:
    """experiments/benchmarks/presets_speed.py, small."""
    script = ROOT / "experiments" / "benchmarks" / "presets_speed.py"
    small = ["data.tile_size=64", "data.overlap=8", "data.batch_size=2"]
    words = [word for setting in small for word in ("--set", setting)]
    words += ["--device", "cuda", "--json", str(tmp_path / "rows.json")]
    command = [sys.executable, str(script), "--steps", "3", "--side", "512", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "rows.json").read_text())
    assert torch.cuda.get_device_name() in found["machine"]
    assert [(row["preset"], row["device"]) for row in found["rows"]] == [("Standard", "cuda"), ("Light", "cuda")]
    for row in found["rows"]:
        assert row["images_per_s"] == pytest.approx(row["effective_batch"] / row["step_s"])
        assert row["peak_mb"] > 30


@pytest.mark.slow
def test_the_compiled_parts_learn_the_same(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In fp64, where a compiler may only reorder sums."""
    real = compiling._measured

    def measured(*arguments: Any) -> tuple[float, float] | None:
        return None if real(*arguments) is None else (1.0, 2.0)

    monkeypatch.setattr(compiling, "_measured", measured)  # whatever this machine measures
    monkeypatch.setattr(compiling, "STEPS", 2)
    farm = write_farm(tmp_path, pictures=2)
    changes = {**STEPS, "training.precision": "fp64", "data.windows_per_epoch": 4}
    plain = network_on(device, farm, changes)
    torch.compiler.reset()
    compiled = network_on(device, farm, {**changes, "training.compile": True})
    torch.compiler.reset()
    assert compiled.state["compiled"] is True
    assert list(compiled.state["model"]) == list(plain.state["model"])
    assert furthest(losses(compiled), losses(plain)) < 1e-6
    torch.testing.assert_close(floats(compiled.state), floats(plain.state), rtol=1e-6, atol=1e-7)
    again = network_on(CPU, farm, {**changes, "training.compile": False}, resume_from=compiled.state)
    assert not again.steps, "a checkpoint of a compiled run is a whole one, on any device"
