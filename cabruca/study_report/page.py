"""The page: HTML put together from escaped parts, with its pictures inside."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from cabruca.config.load import redact
from cabruca.config.study import Study, best_config
from cabruca.config.views import differences
from cabruca.errors import ConfigError
from cabruca.page import bullets, document, picture, section, table
from cabruca.study_report import plots, plots_space
from cabruca.study_report.cautions import cautions
from cabruca.study_report.evaluator import Importances
from cabruca.study_report.learnt import learnt
from cabruca.study_report.parts import autopsies, memory_peak, repeated, saved
from cabruca.tracking.files import write_atomic
from cabruca.tracking.short import duration, short_number
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_state import ENDED, StudyState, TrialPhase, TrialState
from cabruca.tracking.study_tables import Row, epochs, parameter_keys, parameter_value, rows_of
from cabruca.tracking.study_words import winner_command

UNTOLD = ("experiment_name", "output_dir")
"""Keys that say where a run lies, not what it learnt."""


def write_report(study: Study, study_dir: StudyDir, state: StudyState, importances: Importances | None = None) -> Path:
    """Write the study's report.html and give its path back. Reads autopsies and repeats from the study's folder.

    Args:
        importances: how much of the differences each parameter explains; None: not known.

    Raises:
        OSError: it cannot be written.
    """
    write_atomic(study_dir.report, page(study, study_dir, state, importances or Importances()), durable=False)
    return study_dir.report


def page(study: Study, study_dir: StudyDir, state: StudyState, importances: Importances) -> str:
    """The whole page."""
    again = repeated(study_dir, state, study)
    sections = [
        _summary(study, state),
        section("Winner", _winner(study, study_dir, state)),
        section("What was learnt", _told(learnt(study, state, again, importances))),
        section("With caution", bullets(cautions(study, state, again))),
        section("Pareto front", picture(plots.front(study, state), "the metrics against each other")),
        section("Leaderboard", _leaderboard(study, state)),
        section("Curves", picture(plots.curves(study, state), "the metric over the epochs, a line a trial"), _CURVES),
        section("Parameters", picture(plots.scatter(study, state), "each parameter against the metric"), _SCATTER),
        *_more_pictures(study, state, importances),
        section("Repeated over several seeds", _repeats(study, again)),
        section("What stopping early saved", _saved(study, state)),
        section("When trials ran", picture(plots_space.timeline(state), "a bar a trial, from asked to ended")),
        section("Failed trials", "".join(_autopsy(trial, found) for trial, found in autopsies(study_dir, state))),
        section("Settings of the study", _settings(study)),
    ]
    return document(f"Study {study.config.name}", sections)


_CURVES = "Thick: the best trial. Faded: stopped early. A cross: failed. Dotted: rungs at which trials were stopped."
_MATTERED = "%s over finished and stopped trials; a parameter that only some trials have may be missing."
_PARALLEL = "Thick: the best trial. The darker, the better. Left to right: each parameter, then the value."
_SCATTER = "Large: the best trial. Grey: stopped early, so with fewer epochs than the others. Red: failed."


def _more_pictures(study: Study, state: StudyState, importances: Importances) -> list[str]:
    bars = picture(plots_space.importance(importances.shares), "importance of each parameter")
    pair = picture(plots_space.together(study, state, importances.shares), "two parameters, the value as colour")
    lines = picture(plots_space.parallel(study, state), "a line a trial through all its parameters")
    return [
        section("What mattered", bars, _MATTERED % importances.by),
        section("Two parameters together", pair, "The darker, the better. A ring: the best trial."),
        section("All parameters together", lines, _PARALLEL),
    ]


def _summary(study: Study, state: StudyState) -> str:
    counted: tuple[TrialPhase, ...] = ("stopped", "running", "waiting", "interrupted", "failed")
    trials = [f"{state.count(*ENDED)} of {max(study.config.num_trials, state.count())} trials done"]
    trials += [f"{state.count(phase)} {phase}" for phase in counted if state.count(phase)]
    wanted = {"maximize": "as large as possible", "minimize": "as small as possible"}
    metrics = [f"{name}, {wanted[way]}" for name, way in zip(study.metrics, study.directions, strict=True)]
    facts = {
        "trials": ", ".join(trials),
        "metric": "; ".join(metrics),
        "work": f"{duration(sum(trial.elapsed_s for trial in state.trials.values()))} in all trials together",
        "configuration": study.config.config,
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }
    return table([], [[key, value] for key, value in facts.items()], kind="facts")


def _winner(study: Study, study_dir: StudyDir, state: StudyState) -> str:
    best = state.best(study)
    value = None if best is None else best.best(study)
    if best is None or value is None:
        return "<p>No trial has a value yet.</p>"
    numbers = ", ".join(f"{m} {short_number(v)}" for m, v in zip(study.metrics, value.values, strict=True))
    told = f"<p class='big'>Trial {best.number}: {escape(numbers)} after epoch {value.epoch}</p>"
    if len(study.metrics) > 1:
        told += f"<p>Best by the first metric; the Pareto front has {len(state.front(study))} trials.</p>"
    train = winner_command(study, study_dir)
    return told + _differences(study, best) + f"<p>Train it: <code>{escape(train)}</code></p>"


def _differences(study: Study, best: TrialState) -> str:
    try:
        found = differences(study.base, best_config(study, best.params))
    except ConfigError as error:  # a base configuration that was edited by hand since
        return f"<p>{escape(str(error))}</p>"
    rows = [[key, *map(_value, pair)] for key, pair in redact(dict(found)).items() if key not in UNTOLD]
    if not rows:
        return "<p>Its configuration is the base configuration's.</p>"
    return table(["key", "base configuration", "winner"], rows, marked=[key for key, *_ in rows if key in best.params])


def _leaderboard(study: Study, state: StudyState) -> str:
    rows = rows_of(study, state)
    keys = parameter_keys(rows)
    head = ["#", "trial", "state", "epoch", *study.metrics, "at epoch", "stopped at rung", "time", "memory", *keys]
    cells = [_leaderboard_cells(row, keys) for row in rows]
    return table(head, cells, classes=[f"state-{row.state}" for row in rows], kind="wide")


def _leaderboard_cells(row: Row, keys: Sequence[str]) -> list[str]:
    memory = "" if row.memory_mb is None else f"{row.memory_mb / 1024:.1f} GB"
    again = "" if row.retry_of is None else f" (trial {row.retry_of} again)"
    return [
        *(_value(row.rank), f"{row.trial}{again}", row.state, _value(row.epoch)),
        *(short_number(value) for value in row.best),
        *(_value(row.best_epoch), _value(row.rung), duration(row.elapsed_s or 0.0), memory),
        *(_value(row.params[key]) if key in row.params else "" for key in keys),
    ]


def _repeats(study: Study, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    head = ["trial", "in the study", "mean", "deviation", "seeds", "values"]
    cells = [
        [
            *(str(row["trial"]), short_number(row["study_value"]), short_number(row["mean"])),
            *(short_number(row["deviation"]), str(len(row["values"])), ", ".join(map(short_number, row["values"]))),
        ]
        for row in rows
    ]
    return table(head, cells) + picture(plots.repeats(rows, study.metrics[0]), "values over seeds")


def _saved(study: Study, state: StudyState) -> str:
    found = saved(study, state)
    if not found.trials or study.config.scheduler.type == "none":
        return ""
    text = (
        f"{found.run} of {found.asked} epochs were run: {study.config.scheduler.type} spared {found.share:.0%} of them "
        f"in {found.trials} trials of at most {study.max_epochs} epochs."
    )
    rows = [[f"after epoch {rung}", str(count)] for rung, count in found.rungs.items()]
    counts = table(["rung", "trials stopped there"], rows) if rows else ""
    return f"<p>{escape(text)}</p>{counts}" + picture(plots_space.rungs(study, state), "trials that came to each rung")


def _autopsy(trial: TrialState, found: Mapping[str, Any]) -> str:
    why = f"Trial {trial.number}, after {epochs(trial.epoch)}: {trial.reason or 'reason not known'}"
    facts = {
        "exception": str(found.get("exception", "")),
        "last metrics": _numbers(found.get("last_metrics")),
        "memory peak": memory_peak(found),
    }
    parts = [table([], [[key, value] for key, value in facts.items() if value], kind="facts")]
    other = found.get("difference_from_best") or {}
    if other:
        rows = [[key, *map(_value, pair)] for key, pair in other.items()]
        parts.append(table(["parameter", "of this trial", "of the best trial"], rows))
    if found.get("trace"):
        trace = "\n".join(map(str, found["trace"]))
        parts.append(f"<details><summary>where it happened</summary><pre>{escape(trace)}</pre></details>")
    return f"<h3>{escape(why)}</h3>{''.join(parts)}"


def _numbers(metrics: Any) -> str:
    """`val/mAP_50 0.512, train/total_loss 1.2`: the losses and what is validated."""
    if not isinstance(metrics, Mapping):
        return ""
    told = {key: value for key, value in metrics.items() if isinstance(value, int | float) and "/" in key}
    wanted = {key: value for key, value in told.items() if "loss" in key or key.startswith("val/mAP")} or told
    return ", ".join(f"{key} {short_number(value)}" for key, value in wanted.items())


def _settings(study: Study) -> str:
    raw = redact(study.config.model_dump(mode="json"))
    lines = {key: value for key, value in raw.items() if key != "search_space"}
    lines |= {f"search_space: {key}": value for key, value in raw["search_space"].items()}
    rows = [[key, _text(value)] for key, value in lines.items() if value not in (None, [], {})]
    return table([], rows, kind="facts")


def _told(lines: Sequence[str]) -> str:
    return bullets(lines) if lines else ""


def _value(value: Any) -> str:
    return "" if value is None else parameter_value(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
