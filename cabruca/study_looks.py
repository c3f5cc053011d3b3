"""A study looked at from outside, while it runs or long after: status, one trial, the best. Reads, writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cabruca.commands import command
from cabruca.config.study import Study, best_config
from cabruca.config.views import differences
from cabruca.errors import RunError
from cabruca.study_report.parts import autopsy_of, memory_peak, repeated, saved
from cabruca.tracking.short import duration, short_number
from cabruca.tracking.status import is_alive, read_status
from cabruca.tracking.study_dir import StudyDir, find_study
from cabruca.tracking.study_events import read
from cabruca.tracking.study_state import StudyState, TrialState
from cabruca.tracking.study_tables import (
    epochs,
    failures,
    heading_text,
    leaderboard_text,
    parameter_value,
    records_of,
)
from cabruca.tracking.study_words import EXCHANGED, go_on_command, winner_command

UNTOLD = ("experiment_name", "output_dir")
"""Keys that say where a run lies, not what it learnt."""


@dataclass(frozen=True)
class Look:
    """`lines` for people, `facts` for programs."""

    lines: Sequence[str]
    facts: Mapping[str, Any]


def status_of(name: str, output_dir: str, *, width: int = 80, color: bool = False) -> Look:
    """The leaderboard, and whether a driver is at work.

    Args:
        width: columns of the terminal. color: it shows colours.

    Raises:
        RunError: there is no such study.
    """
    folder, study, state = _open(name, output_dir)
    status = read_status(folder.status) or {}
    alive = is_alive(status)
    phase = status.get("state", "not begun")
    if phase in ("starting", "running") and not alive:
        phase = "killed"
    told = f" ({status['message']})" if status.get("message") else ""
    driver = (
        f"driver: process {status['pid']} on {status['host']}, {phase}{told}" if alive else f"driver: {phase}{told}"
    )
    spared = saved(study, state)
    lines = [
        heading_text(study, state),
        driver,
        leaderboard_text(study, state, width=width, color=color),
        *failures(state),
    ]
    if spared.trials and study.config.scheduler.type != "none":
        lines.append(f"{spared.run} of {spared.asked} epochs run, {spared.share:.0%} spared")
    if not alive and (phase != "finished" or state.count("running", "waiting", "interrupted")):
        lines.append(f"go on with: {go_on_command(study, folder, str(status.get('message') or ''))}")
    facts = {"name": study.config.name, "path": str(folder.path), "driver": {**status, "state": phase, "alive": alive}}
    return Look(lines, {**facts, "metrics": list(study.metrics), "trials": records_of(study, state)})


def show_trial(name: str, output_dir: str, number: int | None) -> Look:
    """One trial; None: the best one.

    Raises:
        RunError: there is no such study or trial.
    """
    folder, study, state = _open(name, output_dir)
    if number is None:
        number = _best(folder, study, state).number
    if number not in state.trials:
        known = f"0 to {max(state.trials)}" if state.trials else "none"
        raise RunError(f"study {folder.name} has no trial {number}; there are {known}")
    trial, run = state.trials[number], folder.trial_dir(number)
    autopsy = autopsy_of(folder, trial) if trial.state == "failed" else None
    lines = [
        f"trial {number} of study {study.config.name}: {trial.state} after {epochs(trial.epoch)}, "
        f"{duration(trial.elapsed_s)}{f': {trial.reason}' if trial.reason else ''}",
        *(f"  {key} = {parameter_value(value)}" for key, value in trial.params.items()),
        *curve_lines(study, trial),
        *([] if autopsy is None else _autopsy_lines(autopsy)),
        f"run folder: {run.path}",
    ]
    record = next(row for row in records_of(study, state) if row["trial"] == number)
    results = [{"epoch": r.epoch, "step": r.step, **r.metrics} for r in trial.results]
    return Look(lines, {**record, "run": str(run.path), "results": results, "autopsy": autopsy})


def best_of_study(name: str, output_dir: str) -> Look:
    """The winner, or the front, and what makes it.

    Raises:
        RunError: there is no such study, or no trial with a value in it.
    """
    folder, study, state = _open(name, output_dir)
    best = _best(folder, study, state)
    front = state.front(study) if len(study.metrics) > 1 else [best]
    train = winner_command(study, folder)
    changed = {
        key: pair for key, pair in differences(study.base, best_config(study, best.params)).items() if key not in UNTOLD
    }
    lines = [_values_line(study, trial) for trial in front]
    if len(front) > 1:
        lines.append(f"a Pareto front: no trial is better in all metrics; trial {best.number} is best in the first")
    lines += [f"  {key}: {_short(old)} -> {_short(new)}" for key, (old, new) in changed.items()]
    again = next((row for row in repeated(folder, state, study) if row["trial"] == best.number), None)
    if again is None:
        lines.append("one seed alone: winners of short runs are often luck")
        lines.append(f"  {command('tune', 'repeat', folder.path)}")
    else:
        mean, deviation = short_number(again["mean"]), short_number(again["deviation"])
        lines.append(f"over {len(again['values'])} further seeds: {mean} +- {deviation}")
    lines += [EXCHANGED] if study.config.scheduler.type == "pbt" else []
    written = folder.best_config.is_file()
    lines += (
        [f"configuration: {folder.best_config}", f"  {train}"] if written else ["its configuration is not written yet"]
    )
    facts: dict[str, Any] = {"trial": best.number, "front": [trial.number for trial in front], "params": best.params}
    value = best.best(study)
    facts["values"] = dict(zip(study.metrics, value.values if value else (), strict=False))
    config = str(folder.best_config) if written else None
    return Look(lines, {**facts, "config": config, "command": train if written else None, "repeated": again})


def curve_lines(study: Study, trial: TrialState) -> list[str]:
    """A line an epoch: each metric with a bar of the first, long where it is large."""
    values = [result.metrics.get(study.metrics[0]) for result in trial.results]
    found = [value for value in values if value is not None]
    low, high = (min(0.0, *found), max(found)) if found else (0.0, 1.0)
    best = trial.best(study)
    lines = []
    for result, value in zip(trial.results, values, strict=True):
        numbers = "  ".join(f"{name} {short_number(result.metrics.get(name)):>7}" for name in study.metrics)
        bar = "" if value is None or high <= low else "#" * round(24 * (value - low) / (high - low))
        mark = " best" if best is not None and best.epoch == result.epoch else ""
        lines.append(f"  epoch {result.epoch:>3}  {numbers}  {bar}{mark}")
    return lines


def _open(name: str, output_dir: str) -> tuple[StudyDir, Study, StudyState]:
    folder = find_study(name, output_dir)
    return folder, folder.load(), read(folder.results)


def _best(folder: StudyDir, study: Study, state: StudyState) -> TrialState:
    best = state.best(study)
    if best is None:
        raise RunError(f"study {folder.name} has no trial with a value yet; {command('tune', 'status', folder.path)}")
    return best


def _values_line(study: Study, trial: TrialState) -> str:
    best = trial.best(study)
    values = zip(study.metrics, best.values if best else (), strict=False)
    numbers = ", ".join(f"{name} {short_number(value)}" for name, value in values)
    return f"trial {trial.number}: {numbers} after epoch {best.epoch if best else '-'}"


def _autopsy_lines(autopsy: Mapping[str, Any]) -> list[str]:
    lines = ["autopsy:"]
    for key, value in autopsy.items():
        if key == "difference_from_best":
            lines += [f"  {name} {_short(own)}, of the best {_short(other)}" for name, (own, other) in value.items()]
        elif key == "trace":
            lines += [f"    {line}" for line in list(value)[-6:]]
        elif key == "memory_peak_mb" and memory_peak(autopsy):
            lines.append(f"  memory peak: {memory_peak(autopsy)}")
        elif key in ("exception", "reason"):
            lines.append(f"  {key}: {value}")
    return lines


def _short(value: Any) -> str:
    return "null" if value is None else parameter_value(value)
