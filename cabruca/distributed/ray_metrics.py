"""A run's numbers as Prometheus gauges on its node's metrics endpoint, through `ray.util.metrics`.

Ray writes `ray_` in front of the names. Labels: `run` (the experiment's name) and `rank`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cabruca.train.protocols import Record

NAMES = {
    "train/total_loss": "cabruca_train_loss",
    "val/total_loss": "cabruca_val_loss",
    "time/images_per_s": "cabruca_images_per_s",
    "memory/rss_mb": "cabruca_memory_rss_mb",
    "memory/cuda_mb": "cabruca_memory_cuda_mb",
}
"""Name in a record -> gauge."""

ALWAYS = ("cabruca_epoch", "cabruca_step", "cabruca_monitored")


class RayMetrics:
    """The gauges of one rank.

    Args:
        run: the experiment's name. monitored: the metric that decides.
        gauge: makes a gauge, as `ray.util.metrics.Gauge` does.
    """

    def __init__(self, run: str, rank: int, monitored: str, gauge: Callable[..., Any]) -> None:
        self._monitored = monitored
        self._tags = {"run": run, "rank": str(rank)}
        names = {**{gauge_name: metric for metric, gauge_name in NAMES.items()}, **dict.fromkeys(ALWAYS, "")}
        self._gauges = {
            name: gauge(name, description=f"cabruca: {metric or name}", tag_keys=("run", "rank"))
            for name, metric in names.items()
        }

    def show(self, record: Record) -> None:
        """Set what the record knows."""
        values = {gauge: record.metrics[name] for name, gauge in NAMES.items() if name in record.metrics}
        values |= {"cabruca_epoch": float(record.epoch), "cabruca_step": float(record.step)}
        if self._monitored in record.metrics:
            values["cabruca_monitored"] = record.metrics[self._monitored]
        for name, value in values.items():
            if math.isfinite(value):
                self._gauges[name].set(float(value), tags=self._tags)
