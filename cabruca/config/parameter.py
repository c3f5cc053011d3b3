"""One parameter of a search space: its kind, its range or choices, and how its values travel to Optuna and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol

from cabruca.errors import ConfigError

Kind = Literal["uniform", "loguniform", "quniform", "int", "qint", "choice"]
KINDS: tuple[Kind, ...] = ("uniform", "loguniform", "quniform", "int", "qint", "choice")

Encoded = None | bool | int | float | str
"""What Optuna takes as a category."""


class Suggests(Protocol):
    """What is wanted of an Optuna trial."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_categorical(self, name: str, choices: Any) -> Any: ...


@dataclass(frozen=True)
class Parameter:
    """One key of the configuration that trials differ in.

    Attributes:
        key: dotted. low, high: ends of a range, both included; step: distance of a quniform or qint.
        choices: of a choice. when: key of another parameter -> the values under which this one exists.
    """

    key: str
    kind: Kind
    low: float | int | None = None
    high: float | int | None = None
    step: float | int | None = None
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    @property
    def as_text(self) -> bool:
        """Whether the choices travel as JSON text, because one of them is no category of Optuna's."""
        return any(not isinstance(choice, Encoded) for choice in self.choices)

    @property
    def continuous(self) -> bool:
        """Whether it has no list of values."""
        return self.kind in ("uniform", "loguniform")

    def values(self) -> list[Any]:
        """All values, in order.

        Raises:
            ConfigError: it is continuous.
        """
        if self.kind == "choice":
            return list(self.choices)
        if self.continuous:
            raise ConfigError(
                f"search_space.{self.key}: {self.kind} has no list of values, which a grid needs; write choice: [..] "
                "or quniform: [from, to, step], or another sampler"
            )
        return [self.at(place) for place in range(self.steps + 1)]

    @property
    def steps(self) -> int:
        """Steps from low to high; of a continuous one, and of choices, it has no meaning."""
        return int((Decimal(repr(self.high)) - Decimal(repr(self.low))) / Decimal(repr(self.step or 1)))

    def at(self, place: int) -> float | int:
        """Value number `place`, in decimals: 0.1 + 2 x 0.1 is 0.3."""
        value = Decimal(repr(self.low)) + place * Decimal(repr(self.step or 1))
        return float(value) if self.kind == "quniform" else int(value)

    def suggest(self, trial: Suggests) -> Any:
        """The value that Optuna's trial gives it."""
        return self.decode(self._ask(trial))

    def _ask(self, trial: Suggests) -> Any:
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, [self.encode(choice) for choice in self.choices])
        assert self.low is not None
        assert self.high is not None
        if self.kind in ("int", "qint"):
            return trial.suggest_int(self.key, int(self.low), int(self.high), step=int(self.step or 1))
        low, high = float(self.low), float(self.high)
        if self.kind == "quniform":
            return trial.suggest_float(self.key, low, high, step=float(self.step or 1))
        return trial.suggest_float(self.key, low, high, log=self.kind == "loguniform")

    def encode(self, value: Any) -> Any:
        """As Optuna holds it."""
        return json.dumps(value, sort_keys=True) if self.as_text else value

    def decode(self, value: Any) -> Any:
        """As the configuration has it; the inverse of `encode`."""
        if self.as_text:
            return json.loads(value)
        if self.kind == "quniform":  # without the last bits of Optuna's arithmetic
            assert self.low is not None
            assert self.step is not None
            return self.at(round((value - self.low) / self.step))
        return value

    def holds(self, value: Any) -> bool:
        """Whether it is one of the parameter's values."""
        if self.kind == "choice":
            return any(same(value, choice) for choice in self.choices)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        assert self.low is not None
        assert self.high is not None
        if self.kind in ("int", "qint") and not isinstance(value, int):
            return False
        if not self.low <= value <= self.high:
            return False
        return self.step is None or (Decimal(repr(value)) - Decimal(repr(self.low))) % Decimal(repr(self.step)) == 0

    def describe(self) -> str:
        """Its values in words: `loguniform 5e-05 .. 0.002`."""
        if self.kind == "choice":
            return f"one of {', '.join(shown(choice) for choice in self.choices)}"
        step = "" if self.step is None else f" in steps of {self.step}"
        return f"{self.kind} {self.low} .. {self.high}{step}"


def same(a: Any, b: Any) -> bool:
    """Equal as YAML has them: true is not 1, and 1 is 1.0."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def shown(value: Any) -> str:
    """A value as a person would write it in YAML's flow style."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
