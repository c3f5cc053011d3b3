"""Optuna's own figures of a study, drawn from its optuna.db, which is opened for reading alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cabruca.errors import RunError
from cabruca.study_report.evaluator import PED_ANOVA, evaluator

logging.getLogger("optuna").setLevel(logging.ERROR)

_visual = optuna.visualization

FIGURES: Mapping[str, Callable[..., Any]] = {
    "History": _visual.plot_optimization_history,
    "Importance": _visual.plot_param_importances,
    "Slice": _visual.plot_slice,
    "Contour": _visual.plot_contour,
    "Parallel coordinates": _visual.plot_parallel_coordinate,
    "Timeline": _visual.plot_timeline,
    "Pareto front": _visual.plot_pareto_front,
}
"""Title -> Optuna's function; those with a target are drawn of one metric at a time."""

_NO_TARGET = ("Timeline", "Pareto front")
_CONTOUR_KEYS = 4
"""Parameters of a contour figure: it has the square of them in panels."""


def open_study(path: Path, name: str) -> optuna.Study:
    """The newest study of that name in the file (a study extended with other choices goes on as `<name> 2`).

    Raises:
        RunError: there is none, or the file cannot be read.
    """
    if not path.is_file():
        raise RunError(f"{path} is not there yet; it comes with the first trial")
    address = f"sqlite:///file:{path.absolute().as_posix()}?mode=ro&uri=true"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = RDBStorage(address, skip_compatibility_check=True, skip_table_creation=True)
            known = [s for s in optuna.get_all_study_names(storage) if s == name or s.startswith(f"{name} ")]
            if not known:
                raise RunError(f"{path} holds no study '{name}'; it comes with the first trial")
            newest = max(known, key=lambda s: int(s.removeprefix(name).strip() or 1))
            found = optuna.load_study(study_name=newest, storage=storage)
            return _in_memory(found)
    except RunError:
        raise
    except Exception as error:  # sqlalchemy's and sqlite's own kinds are many
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(
            f"{path} cannot be read ({line}); `cabruca tune resume` makes it anew from the journal"
        ) from error


def _in_memory(found: optuna.Study) -> optuna.Study:
    """A copy: a figure asks for the trials many times, and the file may be written meanwhile."""
    copy = optuna.create_study(directions=found.directions, study_name=found.study_name)
    for trial in found.get_trials(deepcopy=False):
        copy.add_trial(trial)
    return copy


def titles_for(study: optuna.Study) -> list[str]:
    """Figures that this study can have."""
    several = len(study.directions) > 1
    return [title for title in FIGURES if title != "Pareto front" or several]


def told_of(study: optuna.Study, title: str) -> str:
    """Which trials a figure is of, in words: Optuna draws what was stopped early in few of them."""
    done, stopped = (len(_in_state(study, state)) for state in (TrialState.COMPLETE, TrialState.PRUNED))
    if title == "Timeline" or not stopped:
        return "Of all trials." if title == "Timeline" else "Of the trials that ran to their end."
    if title == "Importance":
        return f"Of {done} trials that ran to their end and {stopped} stopped early, these with the value they had."
    return f"Of {done} trials that ran to their end; {stopped} stopped early are left out."


def _in_state(study: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state == state]


def _with_stopped(study: optuna.Study) -> optuna.Study:
    """A copy in which trials that were stopped count with their last value, as they do in the study's report."""
    copy = optuna.create_study(directions=study.directions)
    for one in study.get_trials(deepcopy=False):
        stopped = one.state == TrialState.PRUNED and one.values
        copy.add_trial(
            optuna.trial.create_trial(values=one.values, params=one.params, distributions=one.distributions)
            if stopped
            else one
        )
    return copy


def draw(study: optuna.Study, title: str, metrics: Sequence[str], of: int = 0) -> Any:
    """One of `FIGURES`.

    Args:
        metrics: the study's, for the axes. of: which of them.

    Raises:
        RunError: there are not enough trials for it yet; says so in Optuna's words.
    """
    study = _with_stopped(study) if title == "Importance" else study
    done = _in_state(study, TrialState.COMPLETE)
    if not done and title != "Timeline":
        raise RunError("No trial has ended with a value yet.")
    options: dict[str, Any] = {}
    if title == "Pareto front":
        options["target_names"] = list(metrics)
        if len(metrics) > 3:  # more axes than can be drawn: the first three
            options = {"targets": lambda trial: trial.values[:3], "target_names": list(metrics[:3])}
    elif title not in _NO_TARGET:
        options["target_name"] = metrics[of]
        if len(metrics) > 1:
            options["target"] = lambda trial: trial.values[of]
    if title == "Contour":
        options["params"] = _first_keys(done)
    by = ""
    if title == "Importance":
        by, options["evaluator"] = evaluator()
        if by == PED_ANOVA and "target" in options and study.directions[of] == StudyDirection.MAXIMIZE:
            options["target"] = lambda trial: -trial.values[of]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            figure = FIGURES[title](study, **options)
    except (ValueError, RuntimeError, ImportError, KeyError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(f"{title}: not yet ({line})") from error
    figure.update_layout(title=None, margin={"t": 30})
    if by:
        figure.update_xaxes(title=f"share of the differences that it explains ({by})")
    return figure


def _first_keys(done: Sequence[Any]) -> list[str] | None:
    keys = list(dict.fromkeys(key for trial in done for key in trial.params))
    if len(keys) < 2:
        raise RunError("Contour: it takes two parameters.")
    return keys[:_CONTOUR_KEYS]
