"""Which parameters of a study made the difference: one of Optuna's evaluators over its trials."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import optuna
from optuna.distributions import BaseDistribution

from cabruca.config.study import Study
from cabruca.distributed.study_storage import distributions
from cabruca.study_report.evaluator import Importances, evaluator
from cabruca.tracking.study_state import StudyState

LEAST_TRIALS = 8
"""Fewer trials with a value say nothing of importance."""

MOST_TRIALS = 500
"""Of longer studies the newest trials, so that it takes seconds."""

_log = logging.getLogger("cabruca.distributed")


def importances(study: Study, state: StudyState) -> Importances:
    """Share of the first metric's differences that each parameter explains; empty where trials are few or all equal.

    Finished and stopped trials count, each with its best value; parameters that not every trial has may be left out.
    """
    wanted = distributions(study.space)
    sign = study.directions[0]
    with warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")  # experimental
        own = optuna.create_study(direction=sign)
        own.add_trials(_trials(study, state, wanted))
        values = {trial.value for trial in own.get_trials(deepcopy=False)}
        if len(own.get_trials(deepcopy=False)) < LEAST_TRIALS or len(values) < 2:
            return Importances()
        try:
            by, judge = evaluator()
            found = optuna.importance.get_param_importances(own, evaluator=judge)
            return Importances({name: float(share) for name, share in found.items()}, by)
        except (ImportError, ValueError, RuntimeError) as error:
            _log.debug("importance is not known: %s", error)
            return Importances()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _trials(study: Study, state: StudyState, wanted: dict[str, BaseDistribution]) -> list[optuna.trial.FrozenTrial]:
    out = []
    for trial in list(state.trials.values())[-MOST_TRIALS:]:
        best = trial.best(study) if trial.state in ("finished", "stopped") else None
        if best is None or not all(key in wanted and study.space[key].holds(v) for key, v in trial.params.items()):
            continue
        own = {key: wanted[key] for key in trial.params}
        params = study.space.encode(trial.params)
        out.append(optuna.trial.create_trial(value=best.value, params=params, distributions=own))
    return out
