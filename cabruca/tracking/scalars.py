"""What a tracker is sent: finite numbers under one step counter, the optimizer step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cabruca.train.protocols import Record, TrainResult


def finite(record: Record) -> dict[str, float]:
    """The record's numbers that a chart can show; NaN (undefined) is left out."""
    return {name: float(value) for name, value in record.metrics.items() if math.isfinite(value)}


def step_scalars(record: Record) -> dict[str, float]:
    """Those of a record inside an epoch, with `step/` for `train/`: in a chart, a step's loss and an epoch's mean
    loss under one name would alternate."""
    renamed = {name.replace("train/", "step/", 1): value for name, value in finite(record).items()}
    return {name: value for name, value in renamed.items() if name.startswith(("step/", "lr/", "system/"))}


def best_scalar(result: TrainResult, monitor: str) -> dict[str, float]:
    """`{"best/val_mAP_50": 0.41}`, the best value of the monitored metric; nothing where there is none."""
    return {} if result.best is None else {f"best/{monitor.replace('/', '_')}": result.best}


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optimizer": {"lr": 1}}` -> `{"optimizer.lr": 1}`; lists stay whole."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            out |= flatten(value, f"{name}.")
        else:
            out[name] = value
    return out
