"""The real light network in stages, with a late backbone and an average: bitwise over a stop, read by evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_farm import farm_settings, write_farm
from memory_reporter import MemoryReporter
from resuming import assert_same_end, told

from cabruca.config.load import load_config
from cabruca.config.schema import Config
from cabruca.evaluation import load_model
from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask
from cabruca.train import checkpoint
from cabruca.train.loop import train

CHANGES: dict[str, Any] = {
    "training.stages": [{"tile_size": 64, "epochs": 1}, {"tile_size": 96, "epochs": 1, "lr": 1e-4}],
    "training.unfreeze": [{"epoch": 1, "part": "backbone.body.*"}],
    "training.ema_decay": 0.9,
    "optimizer.param_groups": [{"name": "backbone", "lr": 1e-4}],
    "data.windows_per_epoch": 6,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    farm = write_farm(tmp_path_factory.mktemp("farm"), pictures=2)
    settings = {k: v for k, v in farm_settings(farm, farm).items() if k != "training.num_epochs"}
    return load_config(None, {**settings, **CHANGES})


def trained(config: Config, **reporter: Any) -> MemoryReporter:
    out = MemoryReporter(**reporter)
    train(config, CabrucaTask(config), runtime=Runtime.single(), reporter=out)
    return out


@pytest.fixture(scope="module")
def whole(config: Config) -> MemoryReporter:
    return trained(config)


def body(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What learns of the backbone's body."""
    learnt = ("conv_stem.weight", "conv_pw.weight", "conv_dw.weight", "conv_pwl.weight")
    return {k: v for k, v in state["trained"].items() if k.startswith("backbone.body.") and k.endswith(learnt)}


def test_the_body_stays_in_the_first_stage_and_learns_in_the_second(config: Config, whole: MemoryReporter) -> None:
    fresh = CabrucaTask(config).build_model().state_dict()
    first, last = (body(state) for _, state, *_ in whole.saves)
    assert len(first) > 30
    assert all(torch.equal(value, fresh[name]) for name, value in first.items())
    assert not any(torch.equal(value, first[name]) for name, value in last.items())


@pytest.mark.parametrize("stop", [{"stop_after_epoch": 1}, {"stop_at_step": 4}], ids=["at the seam", "after it"])
def test_a_stopped_run_ends_the_same(config: Config, whole: MemoryReporter, stop: dict[str, int]) -> None:
    first = trained(config, **stop)
    second = trained(config, resume_from=first.state)
    assert_same_end(second.state, whole.state)
    assert str(told(first.records + second.records)) == str(told(whole.records))  # as text: NaN is NaN


def test_evaluate_reads_the_average(tmp_path: Path, whole: MemoryReporter) -> None:
    path = tmp_path / "checkpoint_latest.pth"
    checkpoint.write(path, whole.state, metric=None)
    model, _, spec = load_model(path)
    assert spec.tile_size == 96
    name = next(iter(body(whole.state)))
    assert torch.equal(model.state_dict()[name], whole.state["model"][name])
    assert not torch.equal(model.state_dict()[name], whole.state["trained"][name])
