"""What a study searches: parameters by dotted key, each with a range or choices. Knows neither Ray nor Optuna.

::

    search_space:
      optimizer.type: {choice: [adamw, sgd]}
      optimizer.lr: {loguniform: [5.0e-5, 2.0e-3]}
      optimizer.momentum: {when: {optimizer.type: sgd}, uniform: [0.8, 0.99]}

==============  ==========================================================================================
kind            values
==============  ==========================================================================================
uniform [a, b]  numbers a .. b, both ends included
loguniform      the same, every factor as likely as every other; a above 0
quniform        [a, b, q]: a, a + q, a + 2 q .. b (steps are counted from a)
int [a, b]      whole numbers a .. b, both ends included
qint [a, b, q]  whole numbers a, a + q .. b
choice [..]     one of these; any value that the key may have, lists and null among them
==============  ==========================================================================================

`when` names a parameter of the same space and the value, or the list of values, under which this one exists; where it
does not hold, the key keeps what the base configuration says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cabruca.config.parameter import Parameter, Suggests, same, shown
from cabruca.config.schema import Config
from cabruca.config.space_check import check_parameter
from cabruca.config.space_reading import check_conditions, read_parameter
from cabruca.errors import ConfigError, did_you_mean

__all__ = ["Parameter", "SearchSpace", "parse_space"]


def parse_space(raw: Mapping[str, Any]) -> SearchSpace:
    """The search space in plain containers (of YAML).

    Raises:
        ConfigError: an unknown kind, ends in the wrong order, a condition on what is not there; one line.
    """
    if not raw:
        raise ConfigError(
            "search_space is empty; give one key to search, such as optimizer.lr: {loguniform: [1e-4, 1e-2]}"
        )
    read = {str(key): read_parameter(str(key), entry) for key, entry in raw.items()}
    for parameter in read.values():
        check_conditions(parameter, read)
    return SearchSpace(tuple(_in_order(read)))


def _in_order(read: Mapping[str, Parameter]) -> Iterator[Parameter]:
    """As written, but each after those that its conditions name.

    Raises:
        ConfigError: conditions go round in a circle.
    """
    given: set[str] = set()

    def give(key: str, waiting: tuple[str, ...]) -> Iterator[Parameter]:
        if key in waiting:
            circle = " -> ".join((*waiting[waiting.index(key) :], key))
            raise ConfigError(f"search_space: conditions go round in a circle, {circle}; remove one when")
        if key in given:
            return
        for parent in read[key].when:
            yield from give(parent, (*waiting, key))
        given.add(key)
        yield read[key]

    for key in read:
        yield from give(key, ())


@dataclass(frozen=True)
class SearchSpace:
    """The parameters, each after those that its `when` names."""

    parameters: tuple[Parameter, ...]

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self.parameters)

    def __getitem__(self, key: str) -> Parameter:
        return {parameter.key: parameter for parameter in self.parameters}[key]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(parameter.key for parameter in self.parameters)

    def exists(self, parameter: Parameter, params: Mapping[str, Any]) -> bool:
        """Whether the parameter's conditions hold among the values of the others."""
        return all(
            key in params and any(same(params[key], value) for value in values)
            for key, values in parameter.when.items()
        )

    def suggest(self, trial: Suggests) -> dict[str, Any]:
        """Dotted key -> value of a trial, as the configuration has it; conditional ones where their condition holds.

        Args:
            trial: an Optuna trial, or what has its three suggest methods.
        """
        params: dict[str, Any] = {}
        for parameter in self.parameters:
            if self.exists(parameter, params):
                params[parameter.key] = parameter.suggest(trial)
        return params

    def encode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the configuration as Optuna holds them: for `enqueue_trial`, and trials taken over."""
        return {key: self[key].encode(value) for key, value in params.items()}

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `encode`: an Optuna trial's `params` as the configuration has them."""
        return {key: self[key].decode(value) for key, value in params.items()}

    def grid(self) -> dict[str, list[Any]]:
        """Every parameter's values, encoded, for Optuna's GridSampler.

        That sampler shuffles the grid by its seed, so all asks of one study need the same seed.

        Raises:
            ConfigError: a parameter is continuous or conditional.
        """
        for parameter in self.parameters:
            if parameter.when:
                raise ConfigError(
                    f"search_space.{parameter.key} has a condition, and a grid would repeat trials that differ in "
                    "nothing; use the sampler random or tpe, or one study for each case"
                )
        return {p.key: [p.encode(value) for value in p.values()] for p in self.parameters}

    def check(self, base: Config) -> None:
        """Set every parameter to its ends, to values between them and to every choice, one at a time, on top of `base`.

        Raises:
            ConfigError: the schema does not know the key or refuses the value, or a study must not search it.
        """
        for parameter in self.parameters:
            check_parameter(parameter, base)

    def point(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A point of `points_to_evaluate`, checked, as the configuration has it (`encode` it for Optuna).

        Parameters that are left out are drawn.

        Raises:
            ConfigError: a key that is not searched, a value outside its range or choices, or one whose condition does
                not hold.
        """
        for key in raw:
            if key not in self.keys:
                listed = f"; the search space has {', '.join(self.keys)}"
                raise ConfigError(f"{key} is not in the search space{did_you_mean(key, self.keys) or listed}")
        out: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.key not in raw:
                continue
            value, key = raw[parameter.key], parameter.key
            if not parameter.holds(value):
                raise ConfigError(
                    f"{key}: {shown(value)} is not in {parameter.describe()}; widen it, or change the point"
                )
            if not self.exists(parameter, out):
                needs = " and ".join(
                    f"{k}: {shown(list(v) if len(v) > 1 else v[0])}" for k, v in parameter.when.items()
                )
                raise ConfigError(f"{key} exists only where {needs}; say so in the point, or leave {key} out")
            out[key] = float(value) if parameter.kind in ("uniform", "loguniform", "quniform") else value
        return out
