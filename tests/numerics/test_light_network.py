"""The real light network on real windows: the cut of the work, restarts and loader processes change nothing."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import farm_config, write_farm
from memory_reporter import MemoryReporter
from processes import on_ranks

from cabruca.config.load import load_config
from cabruca.model.build import build_model
from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask
from cabruca.train.loop import train
from cabruca.train.optim import parameter_groups
from cabruca.train.protocols import State

FP64 = {"training.precision": "fp64", "data.windows_per_epoch": 12, "training.num_epochs": 1}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_farm(tmp_path_factory.mktemp("farm"))


def trained(farm: str, changes: dict[str, Any], runtime: Runtime, **reporter: Any) -> MemoryReporter:
    config = farm_config(Path(farm), Path(farm), changes)
    out = MemoryReporter(**reporter)
    train(config, CabrucaTask(config), runtime=runtime, reporter=out)
    return out


def cut(farm: str, batch_size: int, accumulation: int, runtime: Runtime) -> State:
    sizes = {"data.batch_size": batch_size, "training.gradient_accumulation_steps": accumulation}
    out = trained(farm, {**FP64, **sizes}, runtime)
    told = {k: v for k, v in out.records[-1].metrics.items() if k.startswith(("train/", "val/")) and not math.isnan(v)}
    return {"model": out.state["model"], "told": told}


@pytest.fixture(scope="module")
def reference(farm: Path) -> State:
    """Three optimizer steps of four pictures, each in one forward pass."""
    return cut(str(farm), 4, 1, Runtime.single())


def assert_equal_to(reference: State, other: State) -> None:
    floats = {k: v for k, v in reference["model"].items() if v.is_floating_point()}
    assert next(iter(floats.values())).dtype == torch.float64
    torch.testing.assert_close({k: other["model"][k] for k in floats}, floats, rtol=1e-9, atol=1e-9)
    assert other["told"].keys() == reference["told"].keys()
    for name, value in reference["told"].items():
        assert other["told"][name] == pytest.approx(value, rel=1e-7, abs=1e-7), name


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation_equals_the_large_batch(farm: Path, reference: State, batch_size: int, accumulation: int) -> None:
    assert_equal_to(reference, cut(str(farm), batch_size, accumulation, Runtime.single()))


def test_two_ranks_equal_one(farm: Path, reference: State, tmp_path: Path) -> None:
    for result in on_ranks(2, partial(cut, str(farm), 2, 2), tmp_path):
        assert_equal_to(reference, result)


def test_the_steps_really_moved_the_weights(farm: Path, reference: State) -> None:
    config = farm_config(farm, farm, FP64)
    fresh = build_model(config, CabrucaTask(config).spec).state_dict()
    moved = [k for k, v in reference["model"].items() if v.is_floating_point() and not torch.equal(v.float(), fresh[k])]
    assert {k.split(".")[0] for k in moved} == {"backbone", "instance", "semantic", "crown", "density"}


def timeless(metrics: dict[str, float]) -> dict[str, float]:
    """Without seconds, megabytes and undefined numbers."""
    return {k: v for k, v in metrics.items() if not k.startswith(("time/", "memory/")) and not math.isnan(v)}


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
def test_a_run_that_goes_on_is_bitwise_the_unbroken_run(farm: Path, mixed: bool) -> None:
    """Stopped in the middle of the second epoch, augmentation on, saved through a file."""
    changes = {"training.mixed_precision": mixed, "data.windows_per_epoch": 6, "optimizer.type": "adamw"}
    changes |= {"data.augmentation.random_rotate": 1.0, "scheduler.type": "onecycle"}
    alone = Runtime.single()
    unbroken = trained(str(farm), changes, alone)
    first = trained(str(farm), changes, alone, stop_at_step=5)
    assert first.state["epoch"] == 1
    assert first.state["step_in_epoch"] == 2
    second = trained(str(farm), changes, alone, resume_from=first.state)
    torch.testing.assert_close(second.state["model"], unbroken.state["model"], rtol=0, atol=0)
    assert all(second.state[part] == unbroken.state[part] for part in ("scheduler", "step", "best", "epoch"))
    ours, theirs = (r.state["optimizer"]["state"] for r in (second, unbroken))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    numbers = [timeless(r.records[-1].metrics) for r in (second, unbroken)]
    assert numbers[0] == numbers[1]


def test_loader_processes_change_nothing(farm: Path) -> None:
    changes = {"data.windows_per_epoch": 6, "training.num_epochs": 1}
    inline = trained(str(farm), changes, Runtime.single(loaders=0)).state["model"]
    beside = trained(str(farm), changes, Runtime.single(loaders=1)).state["model"]
    torch.testing.assert_close(inline, beside, rtol=0, atol=0)


@pytest.mark.parametrize("preset", ["training_config.yaml", "training_config_light.yaml"])
def test_every_parameter_of_the_real_network_is_in_exactly_one_group(preset: str) -> None:
    """Fault 18: parts of the predecessor's network were in no group and never trained."""
    path = Path(__file__).resolve().parents[2] / "configs" / preset
    config = load_config(
        path, {"model.pretrained": "none", "data.scale": 255, "data.mean": [0.5] * 3, "data.std": [0.25] * 3}
    )
    task = CabrucaTask(config)
    model = task.build_model()
    groups = parameter_groups(model, config.optimizer, task.parameter_part)
    owned = [id(p) for group in groups for p in group.parameters.values()]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in model.parameters() if p.requires_grad}
