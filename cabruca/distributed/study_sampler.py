"""Optuna's samplers, each draw of which is a function of (study seed, trial number, parameter).

Optuna's own draw from one stream, so what a trial is given depends on what was drawn before in this process. Here a
sampler is made anew for every draw: a study that was killed and goes on asks what the undisturbed one would have asked.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from cabruca.config.search_space import SearchSpace
from cabruca.errors import ConfigError

Make = Callable[[int], BaseSampler]


def _tpe(space: SearchSpace, many: bool) -> Make:
    # constant_liar: trials that are under way count as bad, so that the next one is not asked beside them
    return lambda seed: optuna.samplers.TPESampler(seed=seed, constant_liar=many)


def _gp(space: SearchSpace, many: bool) -> Make:
    return lambda seed: optuna.samplers.GPSampler(seed=seed)


def _random(space: SearchSpace, many: bool) -> Make:
    return lambda seed: optuna.samplers.RandomSampler(seed=seed)


def _grid(space: SearchSpace, many: bool) -> Make:
    grid = space.grid()
    return lambda seed: optuna.samplers.GridSampler(grid, seed=0)  # one order of the grid for all draws


def _nsga2(space: SearchSpace, many: bool) -> Make:
    return lambda seed: optuna.samplers.NSGAIISampler(seed=seed)


SAMPLERS: Mapping[str, Callable[[SearchSpace, bool], Make]] = {
    "tpe": _tpe,
    "gp": _gp,
    "random": _random,
    "grid": _grid,
    "nsga2": _nsga2,
}
"""Name of the configuration -> what makes a sampler of a seed."""


def make_sampler(kind: str, seed: int, space: SearchSpace, *, many: bool) -> SeededSampler:
    """The sampler of a study.

    Args:
        kind: a name of `SAMPLERS`. many: several trials run at the same time.

    Raises:
        ConfigError: there is none of that name; `grid` with a continuous parameter.
    """
    if kind not in SAMPLERS:
        raise ConfigError(f"sampler '{kind}' is none of {', '.join(SAMPLERS)}; use one of them")
    return SeededSampler(SAMPLERS[kind](space, many), seed)


class SeededSampler(BaseSampler):
    """A sampler that holds no state of its own. Arguments: see `make_sampler`."""

    def __init__(self, make: Make, seed: int) -> None:
        self._make, self._seed = make, seed

    def _fresh(self, number: int, what: str) -> BaseSampler:
        digest = hashlib.sha256(f"{self._seed}/{number}/{what}".encode()).digest()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return self._make(int.from_bytes(digest[:4], "little"))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._fresh(trial.number, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._fresh(trial.number, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._fresh(trial.number, param_name).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._fresh(trial.number, "before").before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: what samplers note down here is for parallel drivers, constraints, and to stop `optimize`."""
