"""A run's numbers as Prometheus gauges on its node's metrics endpoint, through `ray.util.metrics`.

Ray writes `ray_` in front of the names. Labels: `run` (the experiment's name), `rank`, and of a trial `study` and
`trial` (its number), which are empty elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cabruca.tracking.study_place import StudyPlace
from cabruca.train.protocols import BaseCallback, Record, TrainResult

NAMES = {
    "train/total_loss": "cabruca_train_loss",
    "val/total_loss": "cabruca_val_loss",
    "time/images_per_s": "cabruca_images_per_s",
    "memory/rss_mb": "cabruca_memory_rss_mb",
    "memory/cuda_mb": "cabruca_memory_cuda_mb",
}
"""Name in a record -> gauge."""

LABELS = ("run", "rank", "study", "trial")

ALWAYS = ("cabruca_epoch", "cabruca_step", "cabruca_monitored", "cabruca_restarts")


class RayMetrics:
    """The gauges of one rank.

    Args:
        run: the experiment's name. monitored: the metric that decides.
        gauge: makes a gauge, as `ray.util.metrics.Gauge` does. within: of a trial, its place in its study.
    """

    def __init__(
        self, run: str, rank: int, monitored: str, gauge: Callable[..., Any], *, within: StudyPlace | None = None
    ) -> None:
        self._monitored = monitored
        study, trial = (within.study, str(within.trial)) if within else ("", "")
        self._tags = {"run": run, "rank": str(rank), "study": study, "trial": trial}
        self._shown: set[str] = set()
        names = {**{gauge_name: metric for metric, gauge_name in NAMES.items()}, **dict.fromkeys(ALWAYS, "")}
        self._gauges = {
            name: gauge(name, description=f"cabruca: {metric or name}", tag_keys=LABELS)
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
                self._shown.add(name)

    def show_restarts(self, number: int) -> None:
        """How often the run's workers were lost and started again."""
        self._gauges["cabruca_restarts"].set(float(number), tags=self._tags)
        self._shown.add("cabruca_restarts")

    def end(self) -> None:
        """No number from now on: a process that serves the next trial would show those of this one for ever."""
        for name in self._shown:
            self._gauges[name].set(math.nan, tags=self._tags)


class GaugeWatcher(BaseCallback):
    """Shows the records of a run in this process, for which no worker's reporter does it: a trial on one device."""

    def __init__(self, gauges: RayMetrics) -> None:
        self._gauges = gauges

    def on_step(self, record: Record) -> None:
        self._gauges.show(record)

    def on_epoch(self, record: Record) -> None:
        self._gauges.show(record)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        self._gauges.end()
