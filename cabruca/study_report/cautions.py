"""What a reader of a study should not believe: each line only where it applies, with its numbers and a remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cabruca.commands import command
from cabruca.config.parameter import Parameter
from cabruca.config.study import Study
from cabruca.tracking.short import short_number
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_state import StudyState, TrialState
from cabruca.tracking.study_tables import parameter_value
from cabruca.tracking.study_words import EXCHANGED

EDGE = 0.05
"""A best value within this share of its range from an end stands at the edge."""

FEW = 10
"""Trials a parameter, under which a sampler has hardly left its random beginning."""


def cautions(study: Study, state: StudyState, repeats: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines for people, the weightiest first."""
    best = state.best(study)
    if best is None:
        return ["No trial has a value yet: there is nothing to believe."]
    return [
        *_luck(study, best, repeats),
        *([f"{EXCHANGED[0].upper()}{EXCHANGED[1:]}."] if study.config.scheduler.type == "pbt" else []),
        *_short(study),
        *_close(study, state),
        *_edges(study, best),
        *_few(study, state),
        *_failures(state),
        "The value was chosen on the validation set, as the best of many: it is too good. What the winner is worth is "
        "told by pictures that no trial has seen (cabruca evaluate, on the test set).",
    ]


def _luck(study: Study, best: TrialState, repeats: Sequence[Mapping[str, Any]]) -> list[str]:
    own = next((row for row in repeats if row["trial"] == best.number and row["mean"] is not None), None)
    if own is None:
        return [
            f"Trial {best.number} won with one seed. Winners of short runs are often luck: train the best ones again "
            f"over several seeds ({command('tune', 'repeat', StudyDir.of(study).path)})."
        ]
    rows = [row for row in repeats if row["mean"] is not None]
    lines = [
        f"Trial {best.number} had {short_number(own['study_value'])} in the study and "
        f"{short_number(own['mean'])} +- {short_number(own['deviation'])} over {len(own['values'])} further seeds."
    ]
    if rows[0]["trial"] != best.number:
        first = rows[0]["trial"]
        lines.append(
            f"Over several seeds trial {first} is better on average than the study's winner: take trial {first}."
        )
    if len(rows) > 1 and abs(rows[0]["mean"] - rows[1]["mean"]) < (rows[0]["deviation"] or 0.0):
        lines.append(
            f"The means of trials {rows[0]['trial']} and {rows[1]['trial']} differ by less than one deviation between "
            "seeds: the study has not told them apart."
        )
    return lines


def _short(study: Study) -> list[str]:
    whole = study.base.training.num_epochs
    if study.max_epochs >= whole:
        return []
    return [
        f"Trials ran {study.max_epochs} of the configuration's {whole} epochs. What wins early need not win late: a "
        "high learning rate and a small network look better than they are."
    ]


def _close(study: Study, state: StudyState) -> list[str]:
    values = [best.value for trial in state.ranked(study) if trial.state != "failed" and (best := trial.best(study))]
    if len(values) < 3 or len(study.metrics) > 1:
        return []
    spread = abs(values[0] - values[len(values) // 2])
    if spread == 0.0 or abs(values[0] - values[1]) > 0.1 * spread:
        return []
    return [
        f"The first two are {short_number(abs(values[0] - values[1]))} apart, the first and the middle one "
        f"{short_number(spread)}: which of the two is better is not known."
    ]


def _edges(study: Study, best: TrialState) -> list[str]:
    lines = []
    for parameter in study.space:
        end = _edge(parameter, best.params.get(parameter.key))
        if end is not None:
            lines.append(
                f"{parameter.key} of the winner, {parameter_value(best.params[parameter.key])}, stands at the {end} "
                f"end of its range: widen it ({_extend(study, '--study', 'FILE', '--trials', '+10')})."
            )
    return lines


def _edge(parameter: Parameter, value: Any) -> str | None:
    """`lower` or `upper` where a number of a range of many stands near that end."""
    low, high = parameter.low, parameter.high
    if low is None or high is None or not isinstance(value, int | float) or high <= low:
        return None
    if not parameter.continuous and len(parameter.values()) < 5:
        return None
    scale = math.log if parameter.kind == "loguniform" else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low))
    return "lower" if place < EDGE else "upper" if place > 1.0 - EDGE else None


def _few(study: Study, state: StudyState) -> list[str]:
    count, keys = state.count("finished", "stopped"), len(study.space.keys)
    if count >= FEW * keys:
        return []
    many = "parameters" if keys > 1 else "parameter"
    return [
        f"{count} trials for {keys} {many} are few ({FEW} a parameter are a beginning): "
        f"{_extend(study, '--trials', f'+{FEW * keys - count}')}."
    ]


def _extend(study: Study, *words: str) -> str:
    return command("tune", "extend", StudyDir.of(study).path, *words)


def _failures(state: StudyState) -> list[str]:
    failed, count = state.count("failed"), state.count()
    if not failed or 4 * failed < count:
        return []
    return [
        f"{failed} of {count} trials failed, so a part of the space was hardly looked at; the autopsies say why, and "
        "--retry-failed runs them again."
    ]
