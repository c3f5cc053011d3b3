"""Runs on a given device: the line fit and the small light network on the drawn farm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from drawn_farm import farm_config
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter

from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask
from cabruca.train.loop import train
from cabruca.train.protocols import State

CPU = torch.device("cpu")

STEPS: dict[str, Any] = {"data.windows_per_epoch": 8, "training.num_epochs": 1, "training.log_interval": 1}
"""Four optimizer steps of two pictures, each with a record."""


def line_on(device: torch.device, reporter: MemoryReporter | None = None, **sections: Mapping[str, Any]) -> Any:
    """A line fit of 13 points whose dropout draws from the device's own generator; its reporter."""
    out = reporter or MemoryReporter()
    train(line_config(**sections), LineTask(dropout=0.3), runtime=Runtime.single(device), reporter=out)
    return out


def network_on(
    device: torch.device, farm: Path, changes: Mapping[str, Any], *, loaders: int = 0, **reporter: Any
) -> MemoryReporter:
    """The small light network of `drawn_farm`, without pretrained weights."""
    config = farm_config(farm, farm, {"model.pretrained": "none", **changes})
    out = MemoryReporter(**reporter)
    train(config, CabrucaTask(config), runtime=Runtime.single(device, loaders=loaders), reporter=out)
    return out


def losses(reporter: MemoryReporter) -> list[float]:
    """Of every optimizer step, where each has a record."""
    return [record.metrics["train/total_loss"] for record in reporter.steps]


def floats(state: State) -> dict[str, torch.Tensor]:
    """Weights of a state."""
    return {name: value for name, value in state["model"].items() if value.is_floating_point()}


def furthest(ours: list[float], theirs: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
