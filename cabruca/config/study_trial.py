"""From a study and parameters to the configuration of a run: that of a trial, and that of the winner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cabruca.config.layers import apply_overrides
from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config

if TYPE_CHECKING:
    from cabruca.config.study import Study


def trial_config(study: Study, params: Mapping[str, Any], *, number: int, folder: Path) -> Config:
    """The configuration of a trial: a run named `trial_0007` in `folder`.

    The parameters lie over the base as flags do (`optimizer.lr` scales the groups' rates). Every trial has the same
    `training.seed`, is validated after every epoch unless the study sets `validation.frequency`, keeps no numbered
    checkpoints and no pictures of predictions, and is not tested: a study must not choose by the test set. Workers get
    `resources_per_trial` each. Early stopping stays as the base has it, beside whatever the study's scheduler stops.

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
    return configured(study, params, sparing | _resources(study))


def best_config(study: Study, params: Mapping[str, Any]) -> Config:
    """The configuration that `cabruca train` repeats a trial with: the same numbers, a folder and a test of its own.

    Raises:
        ConfigError: the parameters together break a rule.
    """
    return configured(study, params, {"experiment_name": None})


def _resources(study: Study) -> dict[str, Any]:
    """What each worker of a trial gets; of a trial in one process, Ray sets it aside without the configuration."""
    if study.config.workers_per_trial == 1:
        return {}
    own = study.config.resources_per_trial
    resources = {**study.base.distributed.resources_per_worker, "CPU": own.cpu, **({"GPU": own.gpu} if own.gpu else {})}
    return {"distributed.use_gpu": own.gpu > 0, "distributed.resources_per_worker": resources}


def configured(study: Study, params: Mapping[str, Any], more: Mapping[str, Any]) -> Config:
    """The base under what the study decides, `more`, and the parameters, strongest last.

    Raises:
        ConfigError: they break a rule.
    """
    decided: dict[str, Any] = {
        "training.monitor_metric": study.metrics[0],
        "training.minimize_metric": study.directions[0] == "minimize",
        "validation.frequency": 1,
        "distributed.num_workers": study.config.workers_per_trial,
    }
    if not study.base.training.stages:
        decided |= {"training.num_epochs": study.max_epochs, "scheduler.T_max": None}
    decided = {
        key: value for key, value in {**decided, **more}.items() if key not in KEPT or key not in study.config.set
    }
    return config_from_dict(apply_overrides(study.base.to_dict(), {**decided, **params}))


KEPT = (
    *("validation.frequency", "scheduler.T_max", "training.save_frequency", "validation.save_predictions"),
    *("distributed.use_gpu", "distributed.resources_per_worker"),
)
"""Keys that a study decides only where its `set` or a flag does not."""
