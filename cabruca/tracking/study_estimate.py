"""What a study will cost in time, disk and memory, from one real epoch of its base configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cabruca.config.study import Study


@dataclass(frozen=True)
class DryEpoch:
    """What one epoch of the base configuration, with a trial's resources, took.

    Attributes:
        seconds: the epoch with its validation. startup_s: from the request to the first step.
        bytes_: of the run folder after it, a file with two names counted once.
        memory_mb: the peak of all the trial's processes, MiB.
        metrics: the epoch's record; NaN where a metric had no number.
        checkpoint_bytes: of one checkpoint; None: all of `bytes_`.
    """

    seconds: float
    startup_s: float
    bytes_: int
    memory_mb: float
    metrics: Mapping[str, float]
    checkpoint_bytes: int | None = None


@dataclass(frozen=True)
class Estimate:
    """What the study will cost. Times in seconds, sizes in bytes, memory in MiB.

    Attributes:
        worst_s: all trials, all epochs. expected_s: with the trials that asha stops; None for other schedulers.
        budget_s: the time budget, None without one.
        epochs, expected_epochs: of all trials, without and with asha.
        disk_bytes: most that the study's folder takes at a time. free_bytes: of the disk.
        memory_mb: of all concurrent trials. ram_mb: of the machine.
    """

    worst_s: float
    expected_s: float | None
    budget_s: float | None
    trials: int
    epochs: int
    expected_epochs: float | None
    disk_bytes: int
    free_bytes: int
    memory_mb: float
    ram_mb: float

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for estimate.json."""
        raise NotImplementedError


def estimate(study: Study, dry: DryEpoch, free_disk: int, ram: int) -> Estimate:
    """What the study will cost.

    Args:
        dry: the epoch that was tried. free_disk: bytes free where the study lies. ram: bytes of memory in the machine.

    Raises:
        ConfigError: a metric of the study is not measured or has no number; the study does not fit on the disk or
            into its disk budget.
    """
    raise NotImplementedError
