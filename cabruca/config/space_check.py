"""A parameter against the schema: what a trial would refuse is refused before the first trial."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from cabruca.config.keys import section_at
from cabruca.config.load import apply_overrides, config_from_dict
from cabruca.config.parameter import Parameter, shown
from cabruca.config.schema import Config
from cabruca.errors import ConfigError

MANY = 64
"""A range of more whole numbers than this is looked at in places."""

OWN: Mapping[str, str] = {
    "training.num_epochs": "a study gives every trial max_epochs",
    "training.stages": "a study gives every trial max_epochs",
    "training.seed": "seeds are no setting; repeat_best trains the best over several",
    "training.monitor_metric": "trials are compared by one metric; write it under metric",
    "training.minimize_metric": "trials are compared in one direction; write it under mode",
    "experiment_name": "a study names its trials",
    "output_dir": "trials lie in the study's folder",
    "distributed.num_workers": "write workers_per_trial",
    "data.val_dir": "trials are compared on one validation set",
    "data.val_annotations": "trials are compared on one validation set",
    "data.test_dir": "a study must not see the test set",
    "data.test_annotations": "a study must not see the test set",
}
"""Keys that a study does not search, and why."""


def check_parameter(parameter: Parameter, base: Config) -> None:
    """Set it to its ends, to values between them and to every choice, on top of `base`.

    A conditional one is tried under every case of its condition.

    Raises:
        ConfigError: the schema does not know the key or refuses a value, or a study does not search the key.
    """
    where = f"search_space.{parameter.key}"
    if parameter.key in OWN:
        raise ConfigError(f"{where} is not for a search: {OWN[parameter.key]}; remove it")
    if section_at(parameter.key.split(".")) is not None and not _is_list(parameter.key, base):
        raise ConfigError(f"{where} is a section; search keys in it, such as {parameter.key}.{_first(parameter.key)}")
    raw = base.to_dict()
    for value, case in itertools.product(tried(parameter), _cases(parameter)):
        try:
            config_from_dict(apply_overrides(raw, {**case, parameter.key: value}))
        except ConfigError as error:
            raise ConfigError(_line(parameter, value, case, error, raw)) from None


def _line(parameter: Parameter, value: Any, case: Mapping[str, Any], error: ConfigError, raw: Mapping[str, Any]) -> str:
    """The schema's refusal, with the parameter it is of and what else to write."""
    where, text = f"search_space.{parameter.key}", str(error)
    what = f"search_space.{text}" if text.startswith(parameter.key) else f"{where}: {shown(value)} is refused: {text}"
    under = f", here where {', '.join(f'{key} is {shown(v)}' for key, v in case.items())}" if case else ""
    hint = ""
    if "whole number" in text and parameter.kind != "choice":
        hint = "; write int or qint"
    elif parameter.kind == "int" and "multiple of" in text and _passes(parameter.key, parameter.low, raw):
        hint = "; write qint: [from, to, step], or choice: [..]"
    return f"{what}{under}{hint}"


def tried(parameter: Parameter) -> list[Any]:
    """The values that stand for all: every choice, every step where they are few, else the ends and some between."""
    if parameter.kind == "choice":
        return list(parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.continuous:
        between = math.sqrt(parameter.low * parameter.high) if parameter.kind == "loguniform" else None
        return [parameter.low, parameter.high, between or (parameter.low + parameter.high) / 2]
    count = parameter.steps + 1
    places = range(count) if count <= MANY else sorted({0, 1, 2, 3, count // 2, count // 2 + 1, count - 2, count - 1})
    return [parameter.at(place) for place in places]


def _cases(parameter: Parameter) -> Iterator[dict[str, Any]]:
    """Every way in which its condition can hold."""
    for values in itertools.product(*parameter.when.values()):
        yield dict(zip(parameter.when, values, strict=True))


def _passes(key: str, value: Any, raw: Mapping[str, Any]) -> bool:
    try:
        config_from_dict(apply_overrides(raw, {key: value}))
    except ConfigError:
        return False
    return True


def _is_list(key: str, base: Config) -> bool:
    """Whether the key holds a list of sections, which is one value, or leads into one."""
    here: Any = base.to_dict()
    for part in key.split("."):
        if isinstance(here, list):
            return True
        here = here.get(part) if isinstance(here, dict) else None
    return isinstance(here, list)


def _first(key: str) -> str:
    section = section_at(key.split("."))
    return next(iter(section.model_fields)) if section else ""
