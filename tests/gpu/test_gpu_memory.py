"""The GPU's memory: what is told of it, that it does not grow, and what happens when it runs out."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from drawn_farm import farm_config, farm_settings
from on_device import network_on
from predecessor_files import nested

from cabruca.cli.main import main
from cabruca.data.synthetic import draw_plot
from cabruca.errors import OutOfMemory
from cabruca.run import run_training
from cabruca.runtime import Runtime
from cabruca.task import pin_memory
from cabruca.train import checkpoint

ROOM_MB = 1500
"""What the process may take; the large step below wants several times as much."""

LARGE: dict[str, Any] = {
    "model.pretrained": "none",
    "data.tile_size": 512,
    "data.batch_size": 32,
    "data.windows_per_epoch": 32,
    "training.num_epochs": 1,
}


@pytest.fixture(scope="module")
def plot(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the data of a drawn plot is, as settings."""
    files = draw_plot(tmp_path_factory.mktemp("plot"), size_px=768, gsd_m=0.1, seed=0)
    return {
        "data.train_dir": str(files.images_dir),
        "data.val_dir": str(files.images_dir),
        "data.train_annotations": str(files.train_annotations),
        "data.val_annotations": str(files.val_annotations),
    }


@pytest.fixture
def little(cuda: torch.device) -> Iterator[torch.device]:
    """A GPU with little memory."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.set_per_process_memory_fraction(ROOM_MB * 2**20 / total)
    yield cuda
    torch.cuda.set_per_process_memory_fraction(1.0)


def held_mb() -> float:
    """Of tensors; without what NVIDIA's matrix library keeps for its next call."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    return torch.cuda.memory_allocated() / 2**20


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_peak_is_told_and_does_not_grow_over_epochs(cuda: torch.device, farm: Path) -> None:
    before = held_mb()
    found = network_on(cuda, farm, {"training.num_epochs": 5, "data.windows_per_epoch": 8})
    peaks = [record.metrics["memory/cuda_mb"] for record in found.records]
    weights = sum(w.numel() * w.element_size() for w in found.state["model"].values()) / 2**20
    print("MB:", [round(peak) for peak in peaks])
    assert peaks[0] > 3 * weights, "weights, gradients and moments at the least"
    assert peaks[-1] < 1.2 * peaks[1]
    assert held_mb() < before + 8.0, "the run left something behind"


def test_a_peak_is_that_of_its_own_run(cuda: torch.device, farm: Path) -> None:
    block = torch.zeros(2**31, dtype=torch.uint8, device=cuda)
    del block
    found = network_on(cuda, farm, {"training.num_epochs": 1, "data.windows_per_epoch": 4})
    assert found.records[0].metrics["memory/cuda_mb"] < 2048


def test_the_records_have_the_gpus_own_numbers(cuda: torch.device, farm: Path, tmp_path: Path) -> None:
    pytest.importorskip("pynvml")
    own = {"experiment_name": "told", "device": "cuda", "model.pretrained": "none", "tracking.system_metrics_s": 0.2}
    config = farm_config(farm, tmp_path, {**own, "training.num_epochs": 3})
    run_training(config, quiet=True)
    found = [row for row in rows(tmp_path / "told") if "time/epoch_s" in row]
    total = torch.cuda.get_device_properties(cuda).total_memory / 2**20
    for row in found:
        assert 0 < row["memory/cuda_mb"] < row["system/gpu_memory_mb"] < total
        assert 0 <= row["system/gpu_percent"] <= 100
    said = json.loads((tmp_path / "told" / "environment.json").read_text())
    assert said["gpu"] == torch.cuda.get_device_name()


def test_memory_is_pinned_by_itself(device: torch.device, farm: Path) -> None:
    assert pin_memory(farm_config(farm, farm), Runtime.single(device)) == (device.type == "cuda")


def test_a_step_that_does_not_fit_is_told_and_all_is_given_back(
    little: torch.device, farm: Path, plot: dict[str, str]
) -> None:
    before = held_mb()
    with pytest.raises(OutOfMemory) as raised:
        network_on(little, farm, {**LARGE, **plot})
    said = str(raised.value)
    assert said.startswith("out of memory on cuda in optimizer step 1 ("), said
    assert "give --batch-size 16 --grad-accum 2" in said
    assert "give --mixed-precision" in said
    assert "compute on the CPU: --device cpu" in said
    assert len(said.splitlines()) == 1
    del raised
    assert held_mb() < before + 8.0
    again = network_on(little, farm, {"training.num_epochs": 1, "data.windows_per_epoch": 4})
    assert again.records[0].metrics["memory/cuda_mb"] < ROOM_MB


def test_a_smaller_cut_is_found_by_itself(little: torch.device, farm: Path, plot: dict[str, str]) -> None:
    found = network_on(little, farm, {**LARGE, **plot, "training.on_oom": "shrink"})
    metrics = found.records[0].metrics
    assert metrics["memory/batch_size"] < 32
    assert 32 % metrics["memory/batch_size"] == 0
    assert metrics["train/skipped_steps"] == 0
    assert metrics["memory/cuda_mb"] < ROOM_MB
    assert found.state["step"] == 1, "one optimizer step of 32 pictures, however it is cut"


@pytest.mark.usefixtures("little")
def test_the_command_says_it_in_one_line_with_exit_code_2(plot: dict[str, str], farm: Path, tmp_path: Path) -> None:
    config = {**farm_settings(farm, tmp_path), **LARGE, **plot, "experiment_name": "large", "device": "cuda"}
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(nested(config)))
    done = CliRunner().invoke(main, ["train", "--config", str(tmp_path / "large.yaml"), "--quiet"])
    assert done.exit_code == 2, done.output
    lines = [line for line in done.stderr.splitlines() if "out of memory on cuda" in line]
    assert lines
    assert "Traceback" not in done.output
    status = json.loads((tmp_path / "large" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "out of memory on cuda" in status["message"]
    assert checkpoint.newest_intact(tmp_path / "large" / "checkpoints") is None
