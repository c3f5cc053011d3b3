"""Stopped on a GPU and gone on with: there, on a CPU, and the other way round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import farm_config
from memory_reporter import MemoryReporter
from on_device import CPU, line_on, losses, network_on
from resuming import assert_same_end, told

from cabruca.config.schema import Config
from cabruca.evaluation import evaluate
from cabruca.launch import train
from cabruca.train import checkpoint
from cabruca.train.protocols import TrainResult

LINE: dict[str, Any] = {
    "training": {"num_epochs": 4, "gradient_accumulation_steps": 2, "gradient_clip": 1.0},
    "scheduler": {"type": "plateau", "patience": 1, "warmup_steps": 3},
    "data": {"batch_size": 2},
}


def test_a_line_goes_on_bitwise(device: torch.device) -> None:
    """From the middle of an epoch and from its end; dropout draws from the device's generator."""
    whole = line_on(device, **LINE)
    for stop in ({"stop_at_step": 3}, {"stop_at_step": 6}, {"stop_after_epoch": 2}):
        first = line_on(device, MemoryReporter(**stop), **LINE)
        torch.rand(3, device=device)  # whatever else draws in between
        second = line_on(device, MemoryReporter(resume_from=first.state), **LINE)
        assert_same_end(second.state, whole.state)
        assert told(first.records + second.records) == told(whole.records)


def test_the_checkpoint_holds_the_generator_of_the_device(cuda: torch.device) -> None:
    saved = line_on(cuda, MemoryReporter(stop_at_step=3), **LINE).state
    assert torch.equal(saved["rng"][0]["cuda"], torch.cuda.get_rng_state(cuda))
    goes_on = line_on(cuda, MemoryReporter(resume_from=saved), **LINE)
    del saved["rng"][0]["cuda"]
    without = line_on(cuda, MemoryReporter(resume_from=saved), **LINE)
    assert told(without.records) != told(goes_on.records), "the generator of the device decides nothing here"


@pytest.mark.usefixtures("exact_fp32")
def test_the_network_goes_on(device: torch.device, farm: Path) -> None:
    """The step after the stop is that of the run that only saved there and went on; all that is not added up is equal.

    Some backward passes of a GPU add up in any order, and two runs part within a few steps (by 1 to 7 % on an H200):
    so both come from one state, and only the step that is taken from the very same weights is compared.
    """
    changes = {"data.windows_per_epoch": 6, "training.log_interval": 1, "scheduler.type": "onecycle"}
    whole = network_on(device, farm, changes, save_at_step=4)
    saved = next(state for record, state, *_ in whole.saves if record.step == 4)
    assert (saved["epoch"], saved["step_in_epoch"]) == (1, 1)
    second = network_on(device, farm, changes, resume_from=saved)
    apart = [abs(a / b - 1) for a, b in zip(losses(second), losses(whole)[4:], strict=True)]
    print(f"the steps after the stop are off by {', '.join(f'{a:.2g}' for a in apart)}")
    assert apart[0] < 1e-3
    for part in ("scheduler", "step", "epoch", "scaler"):
        assert second.state[part] == whole.state[part], part
    for name, state in whole.state["rng"][0].items():
        if isinstance(state, torch.Tensor):
            assert torch.equal(second.state["rng"][0][name], state), name
    assert second.state["optimizer"]["state"][0]["step"] == whole.state["optimizer"]["state"][0]["step"]


def settings(farm: Path, out: Path, name: str, device: str, **more: Any) -> Config:
    own = {"experiment_name": name, "device": device, "model.pretrained": "none", "data.windows_per_epoch": 6}
    return farm_config(farm, out, {**own, **more})


def run(farm: Path, out: Path, device: str, name: str, **options: Any) -> TrainResult:
    return train(settings(farm, out, name, device, **options.pop("changes", {})), quiet=True, **options)


@pytest.mark.usefixtures("exact_fp32")
@pytest.mark.parametrize("direction", ["from the GPU to the CPU", "from the CPU to the GPU"])
def test_a_run_moves_to_another_device(device: torch.device, farm: Path, tmp_path: Path, direction: str) -> None:
    there, back = (device.type, "cpu") if direction.startswith("from the GPU") else ("cpu", device.type)
    one, two = {"training.num_epochs": 1}, {"training.num_epochs": 2}
    assert run(farm, tmp_path, there, "moved", changes=one).state == "finished"
    latest = tmp_path / "moved" / "checkpoints" / "checkpoint_latest.pth"
    assert all(w.device == CPU for w in checkpoint.read(latest)["model"].values())
    assert run(farm, tmp_path, back, "moved", changes=two, resume="auto").state == "finished"
    assert run(farm, tmp_path, back, "stayed", changes=two).state == "finished"
    moved, stayed = (_rows(tmp_path / name)[-1] for name in ("moved", "stayed"))
    assert moved["epoch"] == 2
    assert moved["train/total_loss"] == pytest.approx(stayed["train/total_loss"], rel=0.1)
    assert moved["val/total_loss"] == pytest.approx(stayed["val/total_loss"], rel=0.1)


@pytest.mark.usefixtures("exact_fp32")
def test_evaluate_gives_the_same_numbers_on_both(device: torch.device, farm: Path, tmp_path: Path) -> None:
    run(farm, tmp_path, device.type, "one")
    best = tmp_path / "one" / "checkpoints" / "checkpoint_best.pth"
    here, there = (evaluate(best, farm / "images", farm / "farm.json", device=d) for d in (device.type, "cpu"))
    assert here.keys() == there.keys()
    for name in ("total_loss", "loss_instance", "loss_semantic", "loss_crown", "loss_density"):
        assert here[name] == pytest.approx(there[name], rel=1e-3), name
    assert here["mIoU"] == pytest.approx(there["mIoU"], abs=0.01)
    assert here["mAP_50"] == pytest.approx(there["mAP_50"], abs=0.02)


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "time/epoch_s" in row]
