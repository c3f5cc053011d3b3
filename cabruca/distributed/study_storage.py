"""Optuna's storage of a study: optuna.db, which optuna-dashboard opens. It follows the journal."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial

from cabruca.config.search_space import SearchSpace
from cabruca.config.study import Study
from cabruca.distributed.study_memory import RememberedStorage


def open_storage(path: Path) -> BaseStorage:
    """The sqlite file at `path`, made where it is missing; hold the study's lock, as nothing is read back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = RDBStorage(f"sqlite:///{path.absolute()}", engine_kwargs={"connect_args": {"timeout": 60}})
    return RememberedStorage(file)


def with_space(storage: BaseStorage, study: Study) -> str:
    """The name of the study in the storage whose trials fit the study's search space.

    Optuna lets ranges change, choices not. A study that is extended with other choices goes on in a second study of the
    same file, `<name> 2`, into which the trials of the first are copied with their numbers.
    """
    name = study.config.name
    known = sorted(
        (s for s in optuna.get_all_study_names(storage) if s == name or s.startswith(f"{name} ")),
        key=lambda s: int(s.removeprefix(name).strip() or 1),
    )
    if not known:
        return name
    newest = optuna.load_study(study_name=known[-1], storage=storage)
    trials = newest.get_trials(deepcopy=False)
    wanted = _choices(study.space)
    if all(_fits(trial, wanted) for trial in trials):
        return known[-1]
    name = f"{name} {len(known) + 1}"
    directions = list(newest.directions)
    fresh = optuna.create_study(storage=storage, study_name=name, directions=directions)
    for trial in trials:
        fresh.add_trial(_with_choices(trial, wanted))
    return name


def _choices(space: SearchSpace) -> dict[str, CategoricalDistribution]:
    """Distributions of the categorical parameters."""
    seen: dict[str, CategoricalDistribution] = {}

    class Looker:
        """Stands for a trial, and only looks what is asked."""

        def suggest_categorical(self, name: str, choices: Any) -> Any:
            seen[name] = CategoricalDistribution(choices)
            return choices[0]

        def suggest_float(self, name: str, low: float, high: float, **_: Any) -> float:
            return low

        def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
            return low

    for parameter in space:
        parameter.suggest(Looker())
    return seen


def _fits(trial: FrozenTrial, wanted: dict[str, CategoricalDistribution]) -> bool:
    own = trial.distributions.items()
    return all(wanted.get(name, dist) == dist for name, dist in own if isinstance(dist, CategoricalDistribution))


def _with_choices(trial: FrozenTrial, wanted: dict[str, CategoricalDistribution]) -> FrozenTrial:
    """The trial with the choices that there are now; a value that is none of them any more is left out."""
    distributions: dict[str, BaseDistribution] = {}
    for name, own in trial.distributions.items():
        dist = wanted.get(name, own)
        if not isinstance(own, CategoricalDistribution) or trial.params[name] in dist.choices:  # type: ignore[attr-defined]
            distributions[name] = dist
    return optuna.trial.create_trial(
        state=trial.state,
        values=trial.values,
        params={name: trial.params[name] for name in distributions},
        distributions=distributions,
        user_attrs=trial.user_attrs,
        system_attrs=trial.system_attrs,
        intermediate_values=trial.intermediate_values,
    )
