"""A study: what is searched over which base configuration, by which sampler and scheduler, and for how long."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cabruca.config.load import load_config, read_raw
from cabruca.config.messages import explain
from cabruca.config.schema import Config
from cabruca.config.search_space import SearchSpace, parse_space
from cabruca.config.study_check import check_study
from cabruca.config.study_folds import read_folds
from cabruca.config.study_schema import StudyConfig
from cabruca.config.study_trial import KEPT, best_config, trial_config
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
        said = {key: value for key, value in rest.items() if key in KEPT}  # a resume must know of them too
        config = config.model_copy(update={"set": {**config.set, **said}}) if said else config
    else:
        configuration = load_config(base, rest)
    if isinstance(config.folds, str):  # what it holds is part of the study
        content = [dict(fold) for fold in read_folds(config.folds, Path(path))]
        config = _validate({**config.model_dump(mode="json", exclude_unset=True), "folds": content}, str(path), {})
    study = Study(config, configuration, parse_space(config.search_space))
    check_study(study)
    return study


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
