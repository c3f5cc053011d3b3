"""What a study taught, in sentences: what mattered, where the good trials lie, what stopping saved, what seeds do."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cabruca.config.parameter import Parameter
from cabruca.config.study import Study
from cabruca.study_report.evaluator import Importances
from cabruca.study_report.parts import saved
from cabruca.tracking.short import short_number
from cabruca.tracking.study_state import StudyState
from cabruca.tracking.study_tables import parameter_value

GOOD_SHARE = 1 / 3
"""Of the trials with a value, best first: those that count as good."""

LEAST = 6
"""Trials with a value under which nothing is said of parameters."""


def learnt(
    study: Study, state: StudyState, repeats: Sequence[Mapping[str, Any]], importances: Importances
) -> list[str]:
    """Lines for people; only what the trials bear out.

    Args:
        importances: how much of the differences each parameter explains; of no parameter where it is not known.
    """
    valued = [
        (dict(trial.params), best.value)
        for trial in state.ranked(study)
        if trial.state in ("finished", "stopped") and (best := trial.best(study))
    ]
    lines = [*_mattered(importances, len(valued))]
    if len(valued) >= LEAST:
        for parameter in study.space:
            own = [(params[parameter.key], value) for params, value in valued if parameter.key in params]
            lines += _of_choices(parameter, own) if parameter.kind == "choice" else _of_range(parameter, own)
    elif valued:
        lines.append(f"{len(valued)} trials with a value are too few to say which parameters mattered.")
    return [*lines, *_spared(study, state), *_seeds(repeats)]


def _mattered(importances: Importances, trials: int) -> list[str]:
    if not importances.shares:
        return []
    shares = [f"{key} {share:.0%}" for key, share in importances.shares.items()]
    return [
        f"Of the differences between {trials} trials the parameters explain: {', '.join(shares)} ({importances.by}; "
        "trials that were stopped count with the value they had)."
    ]


def _of_choices(parameter: Parameter, own: Sequence[tuple[Any, float]]) -> list[str]:
    groups: dict[str, list[float]] = {}
    for value, result in own:
        groups.setdefault(parameter_value(value), []).append(result)
    if len(groups) < 2:
        return []
    told = [
        f"{name} {short_number(statistics.median(values))} ({len(values)} trial{'s' if len(values) > 1 else ''})"
        for name, values in groups.items()
    ]
    return [f"{parameter.key}, median of the trials' best values: {', '.join(told)}."]


def _of_range(parameter: Parameter, own: Sequence[tuple[Any, float]]) -> list[str]:
    """`own` is in order, best first."""
    good = [value for value, _ in own[: max(2, round(GOOD_SHARE * len(own)))]]
    everything = [value for value, _ in own]
    if len(own) < LEAST or (min(good), max(good)) == (min(everything), max(everything)):
        return []
    low, high = parameter_value(min(good)), parameter_value(max(good))
    tried = f"{parameter_value(min(everything))} to {parameter_value(max(everything))}"
    return [f"{parameter.key}: the best third of the trials lies between {low} and {high}; tried were {tried}."]


def _spared(study: Study, state: StudyState) -> list[str]:
    found = saved(study, state)
    if not found.trials or study.config.scheduler.type == "none":
        return []
    by_epoch = sum(t.elapsed_s for t in state.trials.values()) / max(1, sum(t.epoch for t in state.trials.values()))
    hours = by_epoch * (found.asked - found.run) / 3600
    return [
        f"{study.config.scheduler.type} stopped {sum(found.rungs.values())} of {found.trials} trials early: "
        f"{found.asked - found.run} of {found.asked} epochs were not run, about {hours:.2g} hours of work."
    ]


def _seeds(repeats: Sequence[Mapping[str, Any]]) -> list[str]:
    known = [row for row in repeats if row["mean"] is not None and row["deviation"] is not None]
    if not known:
        return []
    widest = max(row["deviation"] for row in known)
    told = [f"trial {row['trial']} {short_number(row['mean'])} +- {short_number(row['deviation'])}" for row in known]
    return [
        f"Over several seeds: {', '.join(told)}. Trials whose values differ by less than {short_number(2 * widest)} "
        "are not told apart by one seed."
    ]
