"""The monitored metric: a name that no validation measures is refused before the first step."""

from __future__ import annotations

from collections.abc import Iterable

from cabruca.config.schema import Config
from cabruca.errors import ConfigError, did_you_mean
from cabruca.train.protocols import Task, metric_names

OWN = ("train/total_loss", "train/grad_norm", "train/skipped_steps")
"""What the train function measures of every task."""


def check_monitor(config: Config, task: Task) -> None:
    """Look the monitored metric up among the names that the task gives beforehand; a task that gives none passes.

    Raises:
        ConfigError: it is none of them, nor one of `train/...`.
    """
    names = metric_names(task)
    if names is None:
        return
    losses = (f"train/{name}" for name in names if name.startswith("loss_"))
    known = {*OWN, *losses, *(f"val/{name}" for name in names)}
    if config.training.monitor_metric not in known:
        raise not_measured(config.training.monitor_metric, known)


def not_measured(name: str, known: Iterable[str]) -> ConfigError:
    """The refusal of `name`, with what there is: in one line, so without the metrics of single classes and parts."""
    names = sorted(known)
    # a bare name is the likeliest slip, and what is longer by a prefix is no close match
    hint = f"; did you mean 'val/{name}'?" if f"val/{name}" in names else did_you_mean(name, names)
    shown = [n for n in names if n.count("/") == 1]
    return ConfigError(
        f"training.monitor_metric '{name}' is not measured{hint}{' or' if hint else ';'} "
        f"choose one of {', '.join(shown)}"
    )
