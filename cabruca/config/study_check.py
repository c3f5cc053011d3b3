"""Rules that a study, its base configuration and its search space have together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cabruca.config.space_check import tried
from cabruca.config.study_folds import check_mean
from cabruca.config.study_trial import configured
from cabruca.errors import ConfigError

if TYPE_CHECKING:
    from cabruca.config.study import Study


def check_study(study: Study) -> None:
    """Rules that study, base and search space have together.

    Raises:
        ConfigError: one is broken.
    """
    config, training = study.config, study.base.training
    for metric in study.metrics:
        if "/" not in metric:
            raise ConfigError(f"metric: {metric} is no full name; did you mean 'val/{metric}'?")
    check_mean(config, training.monitor_metric)
    if config.metric is not None and not config.modes and study.metrics != (training.monitor_metric,):
        raise ConfigError(
            f"mode is missing: {study.metrics[0]} is not the configuration's monitor, {training.monitor_metric}; write "
            "mode: max or mode: min"
        )
    if training.stages and study.max_epochs != training.num_epochs:
        raise ConfigError(
            f"max_epochs {study.max_epochs} contradicts training.stages, whose epochs make {training.num_epochs}; "
            "leave it out, or write set: {training.stages: []}"
        )
    if config.max_epochs is not None and config.set.get("training.num_epochs", config.max_epochs) != config.max_epochs:
        raise ConfigError(f"set: training.num_epochs contradicts max_epochs {config.max_epochs}; leave one of them out")
    _check_grace(study)
    study.space.check(study.base)
    _check_resources(study)
    configured(study, {}, {})  # what the study decides fits the base
    _check_points(study)


def _check_grace(study: Study) -> None:
    """The scheduler beside the epochs, which are the base's where the study has none.

    Raises:
        ConfigError: no trial would ever be stopped, or take over another's weights.
    """
    settings, epochs = study.config.scheduler, study.max_epochs
    own = "max_epochs" if study.config.max_epochs is not None else "the base configuration's training.num_epochs"
    if settings.type in ("asha", "hyperband", "median") and settings.grace_period > epochs:
        raise ConfigError(
            f"scheduler: grace_period {settings.grace_period} is above {own} {epochs}, so nothing would be stopped; "
            f"write {max(1, epochs // 3)}, or type: none"
        )
    if settings.type == "pbt" and settings.perturbation_interval >= epochs:
        raise ConfigError(
            f"scheduler: perturbation_interval {settings.perturbation_interval} is not below {own} {epochs}, so no "
            "trial would take over weights; write less, or type: none"
        )


def _check_resources(study: Study) -> None:
    """GPUs beside the device, and the batch beside the workers.

    Raises:
        ConfigError: they contradict each other.
    """
    device, gpus = study.base.device, study.config.resources_per_trial.gpu
    if device == "cuda" and gpus == 0:
        raise ConfigError(
            "device: cuda and resources_per_trial: gpu 0 contradict each other; write gpu: 1, or device: cpu"
        )
    if device == "cpu" and gpus > 0:
        raise ConfigError(f"device: cpu and resources_per_trial: gpu {gpus:g} contradict each other; write gpu: 0")
    workers, key = study.config.workers_per_trial, "data.batch_size"
    searched = [tried(parameter) for parameter in study.space if parameter.key == key]
    for batch in searched[0] if searched else [study.base.data.batch_size]:
        if batch % workers:
            raise ConfigError(
                f"{key} {batch} does not divide over workers_per_trial {workers}; use {-(-batch // workers) * workers}"
            )


def _check_points(study: Study) -> None:
    """The points to begin with, and a grid.

    Raises:
        ConfigError: a point is not in the space or breaks a rule; there are more of them, or more trials, than can be.
    """
    config, grid = study.config, study.config.sampler.type == "grid"
    for place, raw in enumerate(config.points_to_evaluate):
        where = f"points_to_evaluate[{place}]"
        try:
            point = study.space.point(raw)
            configured(study, point, {})
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        missing = [key for key in study.space.keys if key not in point]
        if grid and missing:
            raise ConfigError(f"{where}: a grid draws nothing, so {', '.join(missing)} must stand in the point; add it")
    points = len(config.points_to_evaluate)
    if points > config.num_trials:
        raise ConfigError(
            f"points_to_evaluate has {points} points for num_trials {config.num_trials}; raise num_trials"
        )
    if grid:
        size = math.prod(len(values) for values in study.space.grid().values())
        if config.num_trials > size + points:
            raise ConfigError(
                f"num_trials {config.num_trials} is above the {size + points} points of the grid; lower it"
            )
