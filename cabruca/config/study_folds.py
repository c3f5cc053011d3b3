"""Spatial cross-validation of a study: each trial is trained once a fold, and its metric is the mean over the folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cabruca.config.schema import Config
from cabruca.errors import ConfigError

if TYPE_CHECKING:
    from cabruca.config.study_schema import StudyConfig

KEYS = ("train_dir", "train_annotations", "val_dir", "val_annotations")
"""Keys of `data` that a fold gives."""

Fold = dict[str, str]


def read_folds(named: str, study: Path) -> tuple[Fold, ...]:
    """The folds of a file that `cabruca data prepare --folds` wrote.

    Args:
        named: its path, from the working directory, else from the folder of the study's file.

    Raises:
        ConfigError: it is not there, or is no such file.
    """
    path = next((p for p in (Path(named), study.parent / named) if p.is_file()), None)
    if path is None:
        raise ConfigError(
            f"{study}: folds: {named} is neither in the working directory nor beside the study's file; give its path"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"folds: {path} is no JSON ({error}); write it with cabruca data prepare --folds") from None
    folds = raw.get("folds") if isinstance(raw, dict) else None
    if not isinstance(folds, list) or not all(_is_fold(fold) for fold in folds):
        raise ConfigError(f"folds: {path} holds no list of folds; write it with cabruca data prepare --folds")
    return tuple({key: fold[key] for key in KEYS} for fold in folds)


def _is_fold(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in KEYS)


def check_folds(study: StudyConfig) -> None:
    """Rules that folds have with the rest of a study.

    Raises:
        ValueError: one is broken.
    """
    folds = study.folds
    if folds is None:
        return
    if not isinstance(folds, str):
        if len(folds) < 2:
            raise ValueError(f"folds names {len(folds)} fold(s); a mean needs 2 or more")
        if not all(_is_fold(fold) for fold in folds):
            raise ValueError(f"folds: each needs {', '.join(KEYS)}; write it with cabruca data prepare --folds")
    if study.scheduler.type != "none":
        raise ValueError(
            f"folds: the mean is known only in a trial's last fold, when scheduler: type: {study.scheduler.type} can "
            "save nothing more; write scheduler: {type: none}"
        )
    others = [name for name in study.metrics if not name.startswith("val/")]
    if others:
        raise ValueError(f"folds: metric {others[0]} has no mean over the folds; write one that begins with val/")
    if study.workers_per_trial > 1:
        raise ValueError(f"folds need workers_per_trial: 1, not {study.workers_per_trial}; write 1")
    if study.repeat_best is not None:
        raise ValueError("folds and repeat_best both train a trial again; leave one of them out")


def check_mean(study: StudyConfig, monitor: str) -> None:
    """A study that names no metric compares by the base configuration's monitor.

    Raises:
        ConfigError: that has no mean over the folds.
    """
    if study.folds is not None and not study.metrics and not monitor.startswith("val/"):
        raise ConfigError(
            f"folds: the monitor {monitor} has no mean over the folds, and the study names no metric; write one that "
            "begins with val/"
        )


def with_fold(config: Config, fold: Mapping[str, str]) -> Config:
    """A trial's configuration on one fold. All folds take as many epochs, so early stopping is off."""
    data = config.data.model_copy(update={key: fold[key] for key in KEYS})
    training = config.training.model_copy(update={"early_stopping_patience": 0})
    return config.model_copy(update={"data": data, "training": training})


def other_fold(config: Config, fold: Mapping[str, str], *, number: int, folder: Path) -> Config:
    """The same of a fold beside the trial's own: a run folder of its own, without trackers."""
    own = with_fold(config, fold)
    tracking = own.tracking.model_copy(update={"mlflow": False, "wandb": False, "tensorboard": False})
    name = f"{config.experiment_name}_fold_{number}"
    return own.model_copy(update={"tracking": tracking, "experiment_name": name, "output_dir": str(folder)})


def folds_of(folds: str | Sequence[Fold] | None) -> tuple[Fold, ...]:
    """Of a loaded study, whose file was read; none where there are no folds."""
    return () if folds is None or isinstance(folds, str) else tuple(folds)
