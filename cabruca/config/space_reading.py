"""One entry of a `search_space` from plain containers, each mistake refused in a line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from cabruca.config.parameter import KINDS, Kind, Parameter, shown
from cabruca.errors import ConfigError, did_you_mean

_FORMS = {
    "uniform": "[from, to]",
    "loguniform": "[from, to]",
    "quniform": "[from, to, step]",
    "int": "[from, to]",
    "qint": "[from, to, step]",
    "choice": "[one, another]",
}


def read_parameter(key: str, entry: Any) -> Parameter:
    """The parameter in `{kind: values}` or `{when: {..}, kind: values}`.

    Raises:
        ConfigError: no or an unknown kind, not as many values as it needs, ends in the wrong order; one line.
    """
    where = f"search_space.{key}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: {shown(entry)} is no kind with its values; write one, such as choice: [1, 2]")
    kinds = [str(name) for name in entry if name != "when"]
    for name in kinds:
        if name not in KINDS:
            hint = did_you_mean(name, (*KINDS, "when")) or f"; choose one of {', '.join(KINDS)}"
            raise ConfigError(f"{where}: '{name}' is no kind of parameter{hint}")
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none"
        raise ConfigError(f"{where} has {given}; write one kind with its values, such as choice: [1, 2]")
    kind = cast(Kind, kinds[0])
    values = entry[kind]
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise ConfigError(f"{where}: {kind}: {shown(values)} is not a list; write {kind}: {_FORMS[kind]}")
    when = _conditions(where, entry.get("when", {}))
    if kind == "choice":
        return Parameter(key, kind, choices=_choices(where, values), when=when)
    low, high, step = _range(where, kind, values)
    return Parameter(key, kind, low, high, step, when=when)


def check_conditions(parameter: Parameter, others: Mapping[str, Parameter]) -> None:
    """Look whether what its `when` names is there and can have those values.

    Raises:
        ConfigError: it is not searched, is a range of numbers, or never has such a value.
    """
    where = f"search_space.{parameter.key}: when"
    for key, values in parameter.when.items():
        if key not in others:
            listed = f"; name one of {', '.join(others)}, or leave the condition out"
            raise ConfigError(f"{where}: {key} is not in the search space{did_you_mean(key, others) or listed}")
        parent = others[key]
        if parent.kind not in ("choice", "int", "qint"):
            raise ConfigError(f"{where}: {key} is a {parent.kind}, which hardly ever has one value; name a choice")
        for value in values:
            if not parent.holds(value):
                known = [shown(choice) for choice in parent.choices]
                hint = did_you_mean(shown(value), known) or f"; it has {parent.describe()}"
                raise ConfigError(f"{where}: {key} is never {shown(value)}{hint}")


def _conditions(where: str, raw: Any) -> dict[str, tuple[Any, ...]]:
    if not isinstance(raw, Mapping) or any(value == [] for value in raw.values()):
        raise ConfigError(f"{where}: when: {shown(raw)} is no condition; write when: {{optimizer.type: sgd}}")
    return {str(key): tuple(value) if isinstance(value, list) else (value,) for key, value in raw.items()}


def _choices(where: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if len(values) < 2:
        raise ConfigError(
            f"{where}: choice {shown(list(values))} leaves no choice; give two values, or put it under set"
        )
    for place, value in enumerate(values):
        if any(value == other for other in values[:place]):  # true and 1 are one category to Optuna
            raise ConfigError(f"{where}: choice has {shown(value)} twice; name each value once")
    return tuple(values)


def _range(where: str, kind: Kind, values: Sequence[Any]) -> tuple[float, float, float | None]:
    """Ends and step.

    Raises:
        ConfigError: not as many numbers as there should be, or ends that are no range.
    """
    form, wanted = _FORMS[kind], 3 if kind in ("quniform", "qint") else 2
    text = f"{where}: {kind} {shown(list(values))}"
    if len(values) != wanted:
        raise ConfigError(f"{text} has {len(values)} values; write {kind}: {form}")
    whole = kind in ("int", "qint")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigError(f"{text}: {shown(value)} is not a number; write {kind}: {form}, such as [1, 4]")
        if whole and not isinstance(value, int):
            raise ConfigError(
                f"{text}: {value} is not a whole number; write {'quniform' if wanted == 3 else 'uniform'}"
            )
    low, high = (values[0], values[1]) if whole else (float(values[0]), float(values[1]))
    if low > high:
        raise ConfigError(
            f"{text} begins with {low} and ends with {high}; write {kind}: {shown([high, low, *values[2:]])}"
        )
    if low == high:
        raise ConfigError(f"{text} is one value; give two ends, or put {where.removeprefix('search_space.')} under set")
    if kind == "loguniform" and low <= 0:
        raise ConfigError(f"{text} begins at {low}, which has no logarithm; begin above 0, or write uniform")
    return low, high, None if wanted == 2 else _step(text, kind, values)


def _step(text: str, kind: Kind, values: Sequence[Any]) -> float:
    low, high, step = (Decimal(repr(value)) for value in values)
    if step <= 0 or step > high - low:
        raise ConfigError(
            f"{text}: step {step} does not lie above 0 and within the range; write {kind}: {_FORMS[kind]}"
        )
    if (high - low) % step != 0:
        last = low + (high - low) // step * step
        raise ConfigError(f"{text} does not end on a step; the last is {last}: write {kind}: [{low}, {last}, {step}]")
    return int(step) if kind == "qint" else float(step)
