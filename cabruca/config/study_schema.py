"""The keys of a study's file, their defaults and units; the comment behind a field is its line in docs/tuning.md."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cabruca.config.base import RunName, Section

Mode = Literal["max", "min"]


class ResourcesConfig(Section):
    cpu: PositiveFloat = 1.0  # cores that Ray sets aside for a trial's process (with workers: for each worker)
    gpu: NonNegativeFloat = 0.0  # GPUs likewise; 0.5: two trials share one


class SamplerConfig(Section):
    type: Literal["tpe", "gp", "random", "grid", "nsga2"] = "tpe"  # how the next parameters are chosen
    seed: NonNegativeInt = 0  # of every choice; the same file run one trial at a time gives the same study


class StopperConfig(Section):
    type: Literal["asha", "hyperband", "median", "pbt", "none"] = "asha"  # how poor trials are stopped early
    grace_period: PositiveInt = 1  # epochs that every trial may have (pbt: none)
    reduction_factor: Annotated[float, Field(gt=1.0)] = 3.0  # asha, hyperband: one in so many goes on past a rung
    min_samples: PositiveInt = 3  # median: trials that must have come as far
    perturbation_interval: PositiveInt = 1  # pbt: epochs between exchanges
    quantile_fraction: Annotated[float, Field(gt=0.0, le=0.5)] = 0.25  # pbt: share that copies from the best share


class RepeatConfig(Section):
    top: PositiveInt = 2  # best trials that are trained again
    seeds: PositiveInt = 3  # times each, with training.seed + 1, + 2 ..


class StudyConfig(Section):
    """A study's own settings."""

    name: RunName  # of the study's folder and its tracker runs
    config: str  # base configuration; from the working directory, else from the study's folder
    set: dict[str, Any] = Field(default_factory=dict)  # dotted key: value, over the base configuration
    metric: str | tuple[str, ...] | None = None  # what is made best; several: a Pareto front; None: the monitor
    mode: Mode | tuple[Mode, ...] | None = None  # max or min, one a metric; None: as the monitor's
    num_trials: PositiveInt = 20  # trials in all
    max_epochs: PositiveInt | None = None  # num_epochs of every trial; None: the base configuration's
    max_concurrent_trials: PositiveInt = 1  # trials at a time; 1 and a seed give the same study twice
    time_budget: str | PositiveFloat | None = None  # no new trial after it: 2h, 90m, 1h30m, or seconds; None: no limit
    resources_per_trial: ResourcesConfig = ResourcesConfig()
    workers_per_trial: PositiveInt = 1  # processes that train one trial together
    search_space: dict[str, dict[str, Any]] = Field(min_length=1)  # dotted key: kind and values
    sampler: SamplerConfig = SamplerConfig()
    scheduler: StopperConfig = StopperConfig()
    points_to_evaluate: tuple[dict[str, Any], ...] = ()  # parameters to begin with; what one leaves out is drawn
    repeat_best: RepeatConfig | None = None  # train the best again over several seeds at the end; None: do not
    keep_checkpoints: PositiveInt = 3  # trials, the best ones, whose checkpoints are kept
    disk_budget: str | PositiveInt | None = None  # most that the study's folder may take: 20GB, 500MB, or bytes
    max_failures: NonNegativeInt = 2  # times that a trial whose process died is started again

    @property
    def time_budget_s(self) -> float | None:
        """Seconds; None: no limit."""
        raise NotImplementedError

    @property
    def disk_budget_bytes(self) -> int | None:
        """Bytes; None: no limit."""
        raise NotImplementedError
