"""A study: what is searched over which base configuration, by which sampler and scheduler, and for how long."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cabruca.config.layers import apply_overrides
from cabruca.config.load import config_from_dict, load_config, read_raw
from cabruca.config.messages import explain
from cabruca.config.schema import Config
from cabruca.config.search_space import SearchSpace, parse_space
from cabruca.config.study_schema import StudyConfig
from cabruca.errors import ConfigError

__all__ = ["Direction", "Study", "StudyConfig", "best_config", "load_study", "trial_config"]

Direction = Literal["maximize", "minimize"]

STUDY = "study."
"""Overrides that begin with it set keys of the study (`study.num_trials`), all others keys of the base."""


@dataclass(frozen=True)
class Study:
    """A checked study.

    Attributes:
        config: its own settings. base: the base configuration, with the study's `set` and the flags.
        space: what is searched.
    """

    config: StudyConfig
    base: Config
    space: SearchSpace

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is made best, full names; the first one decides a trial's best epoch."""
        return self.config.metrics or (self.base.training.monitor_metric,)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """One a metric, in Optuna's words."""
        if self.config.modes:
            return tuple("maximize" if mode == "max" else "minimize" for mode in self.config.modes)
        return ("minimize" if self.base.training.minimize_metric else "maximize",)

    @property
    def max_epochs(self) -> int:
        """Epochs of a trial that nothing stops."""
        return self.config.max_epochs or self.base.training.num_epochs


def load_study(
    path: str | Path, overrides: Mapping[str, Any] | None = None, *, base: str | Path | None = None
) -> Study:
    """The study in a YAML or JSON file, checked whole.

    Args:
        path: of the study's file. The base configuration it names is looked for from the working directory, then
            from the file's folder.
        overrides: dotted key -> value, stronger than the files: `study.num_trials` and the like set the study's keys,
            all others those of the base configuration.
        base: a base configuration instead of the one it names, in which its `set` is done already (that of the study's
            folder, on a resume).

    Raises:
        ConfigError: one line: the value, the rule it breaks, the remedy.
    """
    overrides = overrides or {}
    own = {key.removeprefix(STUDY): value for key, value in overrides.items() if key.startswith(STUDY)}
    rest = {key: value for key, value in overrides.items() if not key.startswith(STUDY)}
    config = _validate(_with(read_raw(path), own), str(path), own)
    if base is None:
        configuration = load_config(_base_file(config.config, Path(path)), {**config.set, **rest})
    else:
        configuration = load_config(base, rest)
    study = Study(config, configuration, parse_space(config.search_space))
    _check(study)
    return study


def trial_config(study: Study, params: Mapping[str, Any], *, number: int, folder: Path) -> Config:
    """The configuration of a trial: a run named `trial_0007` in `folder`.

    The parameters lie over the base as flags do (`optimizer.lr` scales the groups' rates). Every trial has the same
    `training.seed`, is validated after every epoch unless the study sets `validation.frequency`, keeps no numbered
    checkpoints and no pictures of predictions, and is not tested: a study must not choose by the test set. Early
    stopping stays as the base has it, beside whatever the study's scheduler stops.

    Raises:
        ConfigError: the parameters together break a rule.
    """
    name = f"trial_{number:04d}"
    sparing = {
        "experiment_name": name,
        "output_dir": str(folder),
        "training.save_frequency": 0,
        "validation.save_predictions": False,
        "data.test_annotations": "",
    }
    return _config(study, params, sparing)


def best_config(study: Study, params: Mapping[str, Any]) -> Config:
    """The configuration that `cabruca train` repeats a trial with: the same numbers, a folder and a test of its own.

    Raises:
        ConfigError: the parameters together break a rule.
    """
    return _config(study, params, {"experiment_name": None})


def _config(study: Study, params: Mapping[str, Any], more: Mapping[str, Any]) -> Config:
    decided: dict[str, Any] = {
        "training.monitor_metric": study.metrics[0],
        "training.minimize_metric": study.directions[0] == "minimize",
        "validation.frequency": 1,
        "distributed.num_workers": study.config.workers_per_trial,
    }
    if not study.base.training.stages:
        decided |= {"training.num_epochs": study.max_epochs, "scheduler.T_max": None}
    decided = {
        key: value for key, value in {**decided, **more}.items() if key not in _KEPT or key not in study.config.set
    }
    return config_from_dict(apply_overrides(study.base.to_dict(), {**decided, **params}))


_KEPT = ("validation.frequency", "scheduler.T_max", "training.save_frequency", "validation.save_predictions")
"""Keys that a study decides only where its `set` does not."""


def _with(raw: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The study's raw settings under overrides; what follows the first dot is one name."""
    out = dict(raw)
    for key, value in own.items():
        first, _, rest = key.partition(".")
        below = out.get(first)
        out[first] = {**(below if isinstance(below, Mapping) else {}), rest: value} if rest else value
    return out


def _validate(raw: Mapping[str, Any], source: str, overrides: Mapping[str, Any]) -> StudyConfig:
    try:  # through JSON: strict there still lets a list become a tuple
        return StudyConfig.model_validate_json(json.dumps({k: v for k, v in raw.items() if v is not None}))
    except ValidationError as error:
        path, line = explain(error, raw, StudyConfig)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source} is not plain data ({error}); write numbers, text, lists and mappings") from None
    by_flag = any(key.split(".")[0] == (path or ("",))[0] for key in overrides)
    raise ConfigError(line if by_flag else f"{source}: {line}")


def _base_file(named: str, study: Path) -> Path:
    for path in (Path(named), study.parent / named):
        if path.is_file():
            return path
    raise ConfigError(
        f"{study}: config: {named} is neither in the working directory nor beside the study's file; give its path"
    )


def _check(study: Study) -> None:
    """Rules that study, base and search space have together.

    Raises:
        ConfigError: one is broken.
    """
    config, training = study.config, study.base.training
    for metric in study.metrics:
        if "/" not in metric:
            raise ConfigError(f"metric: {metric} is no full name; did you mean 'val/{metric}'?")
    if config.metric is not None and not config.modes and study.metrics != (training.monitor_metric,):
        raise ConfigError(
            f"mode is missing: {study.metrics[0]} is not the configuration's monitor, {training.monitor_metric}; write "
            "mode: max or mode: min"
        )
    if training.stages and study.max_epochs != training.num_epochs:
        raise ConfigError(
            f"max_epochs {study.max_epochs} contradicts training.stages, whose epochs make {training.num_epochs}; leave "
            "it out, or write set: {training.stages: []}"
        )
    if config.max_epochs is not None and config.set.get("training.num_epochs", config.max_epochs) != config.max_epochs:
        raise ConfigError(f"set: training.num_epochs contradicts max_epochs {config.max_epochs}; leave one of them out")
    study.space.check(study.base)
    _config(study, {}, {})  # what the study decides fits the base
    _check_points(study)


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
            _config(study, point, {})
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
