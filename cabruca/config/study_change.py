"""What may differ when a study goes on: more trials, a wider space, other means; never what trials are compared by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cabruca.config.load import config_from_dict, redact
from cabruca.config.parameter import Parameter, same, shown
from cabruca.config.redact import MASK
from cabruca.config.search_space import SearchSpace
from cabruca.config.study import Study
from cabruca.config.views import differences, flat
from cabruca.errors import ConfigError

COMPARED = ("name", "metric", "mode", "max_epochs", "workers_per_trial", "scheduler", "folds")
"""Keys of a study that decide what its trials' numbers mean."""

MEANS = ("experiment_name", "output_dir", "device", "tracking.", "distributed.", "testing.")
"""Keys of the base, and beginnings of keys, that do not."""


def check_going_on(before: Study, now: Study) -> None:
    """Look whether `now` is the study that `before` was begun as, and no narrower.

    Trials that there are may be fewer or more than before; sampler, budgets, resources and `repeat_best` may change.
    The search space may be wider: ranges that hold the old ones, more choices, more parameters (trials of before had
    the base's value).

    Raises:
        ConfigError: it differs in what trials are compared by, or its space lacks something; says what to set back.
    """
    for key in COMPARED:
        old, new = _seen(before, key), _seen(now, key)
        if old != new:
            raise ConfigError(_line(before, key, old, new))
    stored = config_from_dict(redact(before.base.to_dict()))
    for key, (old, new) in differences(stored, config_from_dict(redact(now.base.to_dict()))).items():
        if not any(key == one or (one.endswith(".") and key.startswith(one)) for one in MEANS):
            raise ConfigError(_line(before, f"the base configuration's {key}", old, new))
    check_wider(before.space, now.space)


def check_unmasked(study: Study) -> None:
    """Look whether the base, read back from a study's folder, still has what its trackers and cluster need.

    Raises:
        ConfigError: a value was stored without its secret; says how to give it again.
    """
    for key, value in flat(study.base).items():
        if not isinstance(value, str) or MASK not in value:
            continue
        if key == "tracking.mlflow_uri" and not study.base.tracking.mlflow:
            continue
        raise ConfigError(
            f"{key}: {value} was stored without its secret; give it again: --set {key}=..., or where the study's file "
            "is, cabruca tune --study FILE --resume"
        )


def check_wider(before: SearchSpace, now: SearchSpace) -> None:
    """Look whether every point of `before` is one of `now`.

    Raises:
        ConfigError: a parameter is gone, of another kind, or has lost values or cases in which it exists.
    """
    for old in before:
        if old.key not in now.keys:
            raise ConfigError(f"search_space.{old.key} is gone; trials of the study have it: put it back as it was")
        new = now[old.key]
        if old.kind != new.kind or old.step != new.step or old.when.keys() != new.when.keys():
            raise ConfigError(_narrower(old, new, "is of another kind"))
        if old.kind == "choice":
            lost = [choice for choice in old.choices if not new.holds(choice)]
        else:
            lost = [end for end in (old.low, old.high) if not new.holds(end)]
        if lost:
            raise ConfigError(_narrower(old, new, f"has lost {', '.join(shown(value) for value in lost)}"))
        for key, values in old.when.items():
            gone = [shown(value) for value in values if not any(same(value, other) for other in new.when[key])]
            if gone:
                raise ConfigError(
                    f"search_space.{old.key} exists no longer where {key} is {', '.join(gone)}; trials of the study "
                    "have it there: put that back under when, or give the study another name"
                )


def _narrower(old: Parameter, new: Parameter, how: str) -> str:
    return (
        f"search_space.{old.key} {how}: it was {old.describe()} and is {new.describe()}; a study's space "
        "can only grow: widen it, or give the study another name"
    )


def _seen(study: Study, key: str) -> Any:
    """A key's value with its default resolved."""
    resolved: Mapping[str, Any] = {
        "metric": list(study.metrics),
        "mode": list(study.directions),
        "max_epochs": study.max_epochs,
    }
    return resolved.get(key, study.config.model_dump(mode="json")[key])


def _line(study: Study, key: str, old: Any, new: Any) -> str:
    return (
        f"study {study.config.name} was begun with {key}: {shown(old)} and is asked for {shown(new)}, so its trials "
        "could not be compared; set it back, or give the study another name"
    )
