"""Figures of a study that Optuna does not have: curves with the stopped trials faded, states, rungs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cabruca.config.study import Study
from cabruca.monitor.figures import BEST, LINES, empty
from cabruca.monitor.studies import Rung
from cabruca.tracking.study_state import StudyState, TrialState

FADED, FAILED = "rgba(139, 149, 161, 0.45)", "#d64545"

STATES = {
    **{"running": "#5b8fd6", "waiting": "#9aa7b5", "finished": "#4f9d76"},
    **{"stopped": "#8b95a1", "failed": FAILED, "interrupted": "#c98a1b"},
}


def trial_curves(study: Study, state: StudyState, metric: str) -> Any:
    """The metric over the epochs, a line a trial; stopped ones are faded, the best is thick, rungs are dotted."""
    figure = empty(420)
    best = state.best(study)
    trials = sorted(state.trials.values(), key=lambda trial: (trial.state != "stopped", trial is best))
    for trial in trials:
        points = [(one.epoch, one.metrics[metric]) for one in trial.results if metric in one.metrics]
        if points:
            x, y = zip(*points, strict=True)
            figure.add_scatter(x=x, y=y, **_style(trial, is_best=trial is best))
    for rung in sorted({trial.rung for trial in trials if trial.rung is not None}):
        figure.add_vline(rung, line={"dash": "dot", "width": 1, "color": "#8b95a1"})
    figure.update_layout(xaxis_title="epoch", yaxis_title=metric, showlegend=False, hovermode="closest")
    return figure


def _style(trial: TrialState, *, is_best: bool) -> dict[str, Any]:
    name = f"trial {trial.number} ({trial.state}{', best' if is_best else ''})"
    line: dict[str, Any] = {"width": 1.6, "color": LINES[0]}
    if is_best:
        line = {"width": 3.5, "color": BEST}
    elif trial.state == "stopped":
        line = {"width": 1.2, "color": FADED}
    elif trial.state == "failed":
        line = {"width": 1.4, "color": FAILED, "dash": "dash"}
    return {"name": name, "line": line, "mode": "lines+markers", "marker": {"size": 5}}


def trials_by_state(state: StudyState) -> Any:
    """A bar a state."""
    figure = empty(260)
    counts = {name: state.count(name) for name in STATES if state.count(name)}  # type: ignore[arg-type]
    colours = [STATES[name] for name in counts]
    figure.add_bar(
        x=list(counts.values()),
        y=list(counts),
        orientation="h",
        marker={"color": colours},
        text=list(counts.values()),
        textposition="auto",
        hoverinfo="skip",
    )
    figure.update_layout(xaxis_title="trials", showlegend=False, hovermode="closest")
    figure.update_yaxes(autorange="reversed")
    return figure


def rung_bars(rungs: Sequence[Rung]) -> Any:
    """A bar a rung: trials that went on, that were stopped there, that are still on their way to it."""
    figure = empty(260)
    names = [f"epoch {rung.epoch}" for rung in rungs]
    parts = (
        ("went on", [rung.on for rung in rungs], LINES[0]),
        ("stopped there", [rung.stopped for rung in rungs], "#8b95a1"),
        ("on the way", [rung.under for rung in rungs], LINES[2]),
    )
    for name, counts, colour in parts:
        figure.add_bar(x=names, y=counts, name=name, marker={"color": colour}, text=[n or "" for n in counts])
    figure.update_layout(barmode="stack", yaxis_title="trials", showlegend=True)
    return figure
