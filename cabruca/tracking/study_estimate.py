"""What a study will cost in time, disk and memory, from one real epoch of its base configuration."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cabruca.config.study import Study
from cabruca.config.study_folds import folds_of
from cabruca.errors import ConfigError, did_you_mean
from cabruca.tracking.study_asha import expected_epochs
from cabruca.tracking.study_words import duration, size
from cabruca.words import counted


@dataclass(frozen=True)
class DryEpoch:
    """What one epoch of the base configuration, with a trial's resources, took.

    Attributes:
        seconds: the epoch with its validation. startup_s: from the request to the first step, and what that step took
            longer than the others.
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
        used_bytes: that the study's folder takes already; `disk_bytes` holds them.
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
    used_bytes: int = 0

    def lines(self) -> list[str]:
        """For people, one fact a line; warnings among them."""
        trials, epochs = counted(self.trials, "trial"), counted(self.epochs, "epoch")
        time = f"time: {duration(self.worst_s)} for all {epochs} of {trials}"
        if self.expected_s is not None and self.expected_epochs is not None:
            expected = counted(round(self.expected_epochs), "epoch")
            time = (
                f"time: about {duration(self.expected_s)} ({expected} of {trials}, as asha stops them on average), "
                f"at most {duration(self.worst_s)} ({epochs})"
            )
        likely = self.worst_s if self.expected_s is None else self.expected_s
        out = [time]
        if self.budget_s is not None and self.budget_s < likely:
            share = self.trials * self.budget_s / likely
            out.append(
                f"warning: time_budget {duration(self.budget_s)} ends the study before: about {share:.0f} of "
                f"{self.trials} trials"
            )
        there = f" ({size(self.used_bytes)} are there already)" if self.used_bytes else ""
        out.append(f"disk: at most {size(self.disk_bytes)} at a time{there}, {size(self.free_bytes)} are free")
        out.append(
            f"memory: {self.memory_mb / 1024:.1f} GiB with all concurrent trials, of {self.ram_mb / 1024:.1f} GiB"
        )
        if self.memory_mb > self.ram_mb:
            out.append("warning: that is more than there is; trials may be killed: lower max_concurrent_trials")
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for estimate.json."""
        return dataclasses.asdict(self)


def estimate(study: Study, dry: DryEpoch, free_disk: int, ram: int, *, done: int = 0, used_bytes: int = 0) -> Estimate:
    """What the study will cost, repetitions of the best included; time and epochs are of the trials that are left.

    Trials that asha stops are counted as if a trial's rank stayed the same from epoch to epoch. Trials that share the
    machine's memory bandwidth are slower than the one that was tried; that is not in it.

    Args:
        dry: the epoch that was tried. free_disk: bytes free where the study lies. ram: bytes of memory in the machine.
        done: trials that have ended. used_bytes: that the study's folder takes already.

    Raises:
        ConfigError: a metric of the study is not measured or has no number; the study does not fit on the disk or
            into its disk budget.
    """
    check_measured(study, dry.metrics)
    config = study.config
    repeats = config.repeat_best.top * config.repeat_best.seeds if config.repeat_best else 0
    asha = config.scheduler.type == "asha"
    left = max(0, config.num_trials - done)
    # stopped ones among those that are done bring the cut up: the share of all trials is what is expected of the rest
    expected = expected_epochs(study) * left / config.num_trials if asha else None
    found = Estimate(
        worst_s=_seconds(study, dry, left, left * study.max_epochs, repeats),
        expected_s=None if expected is None else _seconds(study, dry, left, expected, repeats),
        budget_s=config.time_budget_s,
        trials=left,
        epochs=left * study.max_epochs,
        expected_epochs=expected,
        disk_bytes=_disk(study, dry, repeats),
        free_bytes=free_disk,
        memory_mb=dry.memory_mb * min(config.max_concurrent_trials, config.num_trials),
        ram_mb=ram / 2**20,
        used_bytes=used_bytes,
    )
    _refuse_too_large(study, found)
    return found


def check_measured(study: Study, metrics: Mapping[str, float]) -> None:
    """Look whether an epoch gave every metric of the study a number.

    Raises:
        ConfigError: one is not measured (names what is), or has no number.
    """
    for metric in study.metrics:
        if metric not in metrics:
            names = sorted(name for name in metrics if name.count("/") == 1)
            hint = did_you_mean(metric, metrics)
            hint = f"{hint} or" if hint else ";"
            raise ConfigError(f"metric: {metric} is not measured{hint} choose one of {', '.join(names)}")
        if not math.isfinite(metrics[metric]):
            raise ConfigError(
                f"metric: {metric} has no number after an epoch of the base configuration, as where the data lack what "
                "it is measured by; choose another, or complete the data"
            )


def _seconds(study: Study, dry: DryEpoch, trials: int, epochs: float, repeats: int) -> float:
    """Of that many epochs of trials and of the repetitions, the last trials side by side as well as it goes."""
    at_a_time = study.config.max_concurrent_trials
    total = 0.0
    folds = max(1, len(folds_of(study.config.folds)))
    for count, work in ((trials, epochs), (repeats, repeats * study.max_epochs)):
        if count:
            a_trial = (dry.startup_s + work / count * dry.seconds) * folds
            total += math.ceil(count / at_a_time) * a_trial
    return total


def _disk(study: Study, dry: DryEpoch, repeats: int) -> int:
    """Most bytes at a time: running trials with latest, best and one being written; kept ones with latest and best."""
    config = study.config
    checkpoint = dry.bytes_ if dry.checkpoint_bytes is None else min(dry.checkpoint_bytes, dry.bytes_)
    rest = dry.bytes_ - checkpoint
    running = min(config.max_concurrent_trials, config.num_trials)
    kept = min(config.keep_checkpoints, config.num_trials - running)
    return 3 * checkpoint * running + 2 * checkpoint * (kept + repeats) + rest * (config.num_trials + repeats)


def _refuse_too_large(study: Study, found: Estimate) -> None:
    """Raises:
    ConfigError: the study does not fit on the disk or into its disk budget.
    """
    remedy = "lower max_concurrent_trials, keep_checkpoints or num_trials"
    need, name, budget = found.disk_bytes, study.config.name, study.config.disk_budget_bytes
    more = max(0, need - found.used_bytes)
    wanted = f"{size(more)} more" if found.used_bytes else size(more)
    if more > found.free_bytes:
        raise ConfigError(
            f"study {name} needs {wanted} on the disk and {size(found.free_bytes)} are free; {remedy}, or choose "
            "another output_dir"
        )
    if budget is not None and need > budget:
        raise ConfigError(
            f"study {name} needs {size(need)} and its disk_budget is {size(budget)}; {remedy}, or raise it"
        )
