"""Optuna's storage of a study: optuna.db, which optuna-dashboard opens. It follows the journal.

What of the journal is missing there is written into it again: all of it where the file was lost or damaged, the rest
where a kill fell into that. So it need not wait for the disk, as the journal has.
"""

from __future__ import annotations

import logging
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as Phase

from cabruca.config.search_space import SearchSpace
from cabruca.config.study import Study
from cabruca.distributed.study_memory import RememberedStorage
from cabruca.tracking.study_state import StudyState, TrialState

_log = logging.getLogger("cabruca.distributed")

RETRY = "retry_of"
"""User attribute of a trial that repeats a failed one."""


def open_storage(path: Path) -> BaseStorage:
    """The sqlite file at `path`, made where it is missing; hold the study's lock, as nothing is read back.

    What is written survives the process. A power cut may take the last of it, or damage the file: one that is damaged
    is set aside as `<name>.damaged`.
    """
    if path.is_file() and (fault := _fault_of(path)) is not None:
        aside = path.with_name(f"{path.name}.damaged")
        _log.warning("%s is damaged (%s); it is set aside as %s and made anew", path, fault, aside.name)
        path.replace(aside)
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)  # of the damaged file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = RDBStorage(f"sqlite:///{path.absolute()}", engine_kwargs={"connect_args": {"timeout": 60}})
    sqlalchemy.event.listen(file.engine, "connect", _do_not_wait)
    file.engine.dispose()  # connections that were made before
    return RememberedStorage(file)


def _fault_of(path: Path) -> str | None:
    """What sqlite says of a file that it cannot read, None of a sound one."""
    try:
        with closing(sqlite3.connect(path, timeout=60)) as file:
            said = str(file.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, no permission: says nothing of what is in it
            return None
        return str(error)
    return None if said == "ok" else said


def _do_not_wait(connection: Any, _: Any) -> None:
    """Leave it to the operating system when what was written reaches the disk."""
    connection.execute("PRAGMA synchronous = OFF")


def with_space(storage: BaseStorage, study: Study) -> str:
    """The name of the study in the storage whose trials fit the study's search space.

    Optuna lets ranges change, choices not. A study that is extended with other choices goes on in a second study of the
    same file, `<name> 2`, which `catch_up` fills from the journal.
    """
    names = names_of(storage, study)
    if not names:
        return study.config.name
    trials = optuna.load_study(study_name=names[-1], storage=storage).get_trials(deepcopy=False)
    wanted = distributions(study.space)
    if all(_fits(trial, wanted) for trial in trials):
        return names[-1]
    return f"{study.config.name} {len(names) + 1}"


def names_of(storage: BaseStorage, study: Study) -> list[str]:
    """Names of what the storage holds of the study, the newest last."""
    name = study.config.name
    known = (s for s in optuna.get_all_study_names(storage) if s == name or s.startswith(f"{name} "))
    return sorted(known, key=lambda s: int(s.removeprefix(name).strip() or 1))


def catch_up(own: optuna.Study, study: Study, state: StudyState) -> None:
    """Write the trials of the journal into Optuna's study that it lacks, with their numbers, as trials under way.

    A value that is none of the parameter's any more is left out.
    """
    here = len(own.get_trials(deepcopy=False))
    missing = [trial for number, trial in sorted(state.trials.items()) if number >= here]
    if not missing:
        return
    wanted, notes = distributions(study.space), _notes(own._storage, study)
    for trial in missing:
        own.add_trial(_as_running(trial, study, wanted, notes.get(trial.number, {})))


def _notes(storage: BaseStorage, study: Study) -> dict[int, dict[str, Any]]:
    """What samplers noted of trials in the storage (the generations of nsga2), by number."""
    found: dict[int, dict[str, Any]] = {}
    for name in names_of(storage, study):
        trials = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        found |= {trial.number: trial.system_attrs for trial in trials}
    return found


def _as_running(
    trial: TrialState, study: Study, wanted: dict[str, BaseDistribution], notes: dict[str, Any]
) -> FrozenTrial:
    known = {key: value for key, value in trial.params.items() if key in wanted and study.space[key].holds(value)}
    name = study.metrics[0]
    values = {r.epoch: r.metrics[name] for r in trial.results if name in r.metrics and len(study.metrics) == 1}
    return optuna.trial.create_trial(
        state=Phase.RUNNING,
        params=study.space.encode(known),
        distributions={key: wanted[key] for key in known},
        user_attrs={} if trial.retry_of is None else {RETRY: trial.retry_of},
        system_attrs=notes,
        intermediate_values=values,
    )


def distributions(space: SearchSpace) -> dict[str, BaseDistribution]:
    """What Optuna draws each parameter from."""
    seen: dict[str, BaseDistribution] = {}

    class Looker:
        """Stands for a trial, and only looks what is asked."""

        def suggest_categorical(self, name: str, choices: Any) -> Any:
            seen[name] = CategoricalDistribution(choices)
            return choices[0]

        def suggest_float(
            self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
        ) -> float:
            seen[name] = FloatDistribution(low, high, log=log, step=step)
            return low

        def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
            seen[name] = IntDistribution(low, high, log=log, step=step)
            return low

    for parameter in space:
        parameter.suggest(Looker())
    return seen


def _fits(trial: FrozenTrial, wanted: dict[str, BaseDistribution]) -> bool:
    own = trial.distributions.items()
    return all(wanted.get(name, dist) == dist for name, dist in own if isinstance(dist, CategoricalDistribution))
