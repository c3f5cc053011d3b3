"""The keys of a study's file, their defaults and units; the comment behind a field is its line in docs/tuning.md."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cabruca.config.base import RunName, Section
from cabruca.config.study_folds import check_folds

Mode = Literal["max", "min"]


class ResourcesConfig(Section):
    cpu: PositiveFloat = 1.0  # cores of a trial's process; with workers_per_trial above 1, of each worker
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
    time_budget: str | PositiveFloat | None = None  # 2h, 90m or seconds; then nothing new, what runs is saved
    resources_per_trial: ResourcesConfig = ResourcesConfig()
    workers_per_trial: PositiveInt = 1  # processes that train one trial together
    search_space: dict[str, dict[str, Any]] = Field(min_length=1)  # dotted key: kind and values
    sampler: SamplerConfig = SamplerConfig()
    scheduler: StopperConfig = StopperConfig()
    points_to_evaluate: tuple[dict[str, Any], ...] = ()  # parameters to begin with; what one leaves out is drawn
    repeat_best: RepeatConfig | None = None  # train the best again over several seeds at the end; None: do not
    folds: str | tuple[dict[str, str], ...] | None = None  # folds.json of data prepare: metric = mean over the folds
    keep_checkpoints: PositiveInt = 3  # trials, the best ones, whose checkpoints are kept
    disk_budget: str | PositiveInt | None = None  # most that the study's folder may take: 20GB, 500MB, or bytes
    max_failures: NonNegativeInt = 2  # times that a trial whose process died is started again

    @property
    def time_budget_s(self) -> float | None:
        """Seconds; None: no limit."""
        return None if self.time_budget is None else read_duration(self.time_budget)

    @property
    def disk_budget_bytes(self) -> int | None:
        """Bytes; None: no limit."""
        return None if self.disk_budget is None else read_size(self.disk_budget)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are named; none where the configuration's monitor is meant."""
        return () if self.metric is None else (self.metric,) if isinstance(self.metric, str) else self.metric

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that are named."""
        return () if self.mode is None else (self.mode,) if isinstance(self.mode, str) else self.mode

    @model_validator(mode="after")
    def _check(self) -> StudyConfig:
        for key, read in (("time_budget", read_duration), ("disk_budget", read_size)):
            if (value := getattr(self, key)) is not None:
                try:
                    read(value)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
        check_metrics(self)
        check_together(self)
        check_folds(self)
        return self


def check_metrics(study: StudyConfig) -> None:
    """Metrics and modes beside each other.

    Raises:
        ValueError: a metric twice or none, not one mode each, several metrics beside a scheduler that needs one.
    """
    metrics, modes = study.metrics, study.modes
    if study.metric is not None and not all(metrics or ("",)):
        raise ValueError("metric names nothing; write one, such as val/mAP_50, or leave it out")
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"metric names one twice: {', '.join(metrics)}; name each once")
    if modes and len(modes) != max(1, len(metrics)):
        raise ValueError(f"mode has {len(modes)} entries for {max(1, len(metrics))} metrics; write max or min for each")
    if len(metrics) > 1 and not modes:
        raise ValueError(f"mode is missing for {len(metrics)} metrics; write max or min for each, such as [max, min]")
    if len(metrics) > 1 and study.scheduler.type != "none":
        raise ValueError(
            f"scheduler: type: {study.scheduler.type} stops trials by one metric and there are {len(metrics)}; write "
            "scheduler: {type: none}, or name one metric"
        )


def check_together(study: StudyConfig) -> None:
    """Rules that scheduler and workers have together.

    Raises:
        ValueError: two of them do not fit.
    """
    kind = study.scheduler.type
    if kind in ("hyperband", "pbt") and study.workers_per_trial > 1:
        raise ValueError(
            f"scheduler: type: {kind} pauses trials, which needs workers_per_trial: 1, not {study.workers_per_trial}; "
            "write type: asha or median"
        )


_UNITS_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_UNITS_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS_BYTES |= {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
}


def read_duration(value: str | float) -> float:
    """Seconds in `2h`, `90m`, `1h30m`, `1.5h`, or a number of seconds.

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    text = str(value).strip().lower().replace(" ", "")
    parts = re.findall(r"(\d+(?:\.\d+)?)(min|[dhms])", text)
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text:
        seconds = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
    if seconds <= 0:
        raise ValueError(f"'{value}' is no length of time; write 2h, 90m, 1h30m, or seconds")
    return seconds


def read_size(value: str | int) -> int:
    """Bytes in `20GB` (10^9 each), `500 MB`, `8GiB` (2^30 each), or a number of bytes.

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b?)", str(value).strip().lower())
    size = int(float(found[1]) * _UNITS_BYTES.get(found[2] or "b", 0)) if found else 0
    if size <= 0:
        raise ValueError(f"'{value}' is no size; write 20GB, 500MB, or bytes")
    return size
