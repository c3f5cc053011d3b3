"""experiments/benchmarks/presets_speed.py: its table, and the whole of it on a tiny setting."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "benchmarks" / "presets_speed.py"


@pytest.fixture(scope="module")
def benchmark_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("presets_speed", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["presets_speed"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_the_table_tells_the_epoch_and_what_was_not_run(benchmark_script: ModuleType) -> None:
    row = benchmark_script.Row("Light", "cpu", 256, 4, 8, "bf16", 4.1, 2.0, 4.0, 0.1, 2048.0)
    lines = benchmark_script.table([row, ("Light", "cuda")], 1200).splitlines()
    assert "epoch of 1200" in lines[0]
    assert lines[2] == "| Light | cpu | 256 | 4 x 2 | bf16 | 2.00 | 4.00 | 5.0 min | 2.0 GB |"
    assert lines[3] == "| Light | cuda |" + " not run |" * 7
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.slow
def test_both_presets_are_measured(tmp_path: Path) -> None:
    small = ["data.tile_size=64", "data.overlap=8", "data.batch_size=2"]
    words = [word for setting in small for word in ("--set", setting)]
    command = [sys.executable, str(SCRIPT), "--steps", "2", "--side", "512", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    on_cpu = {row["preset"]: row for row in rows if row["device"] == "cpu"}
    assert on_cpu.keys() == {"Standard", "Light"}
    for row in on_cpu.values():
        assert row["images_per_s"] == pytest.approx(row["effective_batch"] / row["step_s"])
        assert row["peak_mb"] > 300
    assert on_cpu["Standard"]["parameters_m"] > 20 > on_cpu["Light"]["parameters_m"] > 2
    assert on_cpu["Standard"]["effective_batch"] == 4  # its own accumulation
    missing = 2 * (2 - torch.cuda.is_available() - torch.backends.mps.is_available())
    assert sum("not run" in line for line in done.stdout.splitlines()) == missing
