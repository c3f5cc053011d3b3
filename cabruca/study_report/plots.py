"""The report's pictures, as PNG bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from cabruca.config.study import Study
from cabruca.tracking.study_state import StudyState, TrialState
from cabruca.tracking.study_tables import parameter_value

WINNER, KEPT, FADED, FAILED = "#c1440e", "#2f6b4f", "#9aa5a0", "#b00020"
"""Colours of the best trial, of those that ran on, of those that were stopped, of those that failed."""

_SMALL: dict[str, Any] = {"fontsize": "small"}


def curves(study: Study, state: StudyState) -> bytes | None:
    """The first metric over the epochs, a line a trial; stopped ones are faded, the best one is thick."""
    lines = [(trial, *_curve(trial, study.metrics[0])) for trial in state.trials.values()]
    if not any(epochs for _, epochs, _ in lines):
        return None
    best = state.best(study)
    figure, (axes,) = figure_of(1)
    for manner in ("stopped", "kept", "failed", "best"):
        own = [line for line in lines if _manner(line[0], best) == manner and line[1]]
        axes.plot(
            *_joined(own), marker=".", **_LINES[manner]
        )  # one call for all: of a thousand, a call each takes seconds
        if manner == "failed":
            ends = [(epochs[-1], values[-1]) for _, epochs, values in own]
            axes.plot(*zip(*ends, strict=True) if ends else ([], []), "x", color=FAILED, zorder=4)
    if best is not None:
        axes.lines[-1].set_label(f"best: trial {best.number}")
    for rung in sorted({trial.rung for trial in state.trials.values() if trial.rung is not None}):
        axes.axvline(rung, color="#bbbbbb", linewidth=0.8, linestyle=":", zorder=0)
    axes.set(xlabel="epoch", ylabel=study.metrics[0], xlim=(0.8, max(study.max_epochs, 2) + 0.2))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    many = len(lines) > 50  # looking for the emptiest corner takes longer than all else
    corner: Any = "lower right" if study.directions[0] == "maximize" else "upper right"
    axes.legend(**_SMALL, loc=corner if many else "best")
    return png_of(figure)


def _curve(trial: TrialState, metric: str) -> tuple[list[int], list[float]]:
    found = [(result.epoch, result.metrics[metric]) for result in trial.results if metric in result.metrics]
    return [epoch for epoch, _ in found], [value for _, value in found]


_LINES: dict[str, dict[str, Any]] = {
    "stopped": {"color": FADED, "alpha": 0.45, "linewidth": 1.0},
    "kept": {"color": KEPT, "alpha": 0.8, "linewidth": 1.2},
    "failed": {"color": FAILED, "alpha": 0.8, "linewidth": 1.2},
    "best": {"color": WINNER, "linewidth": 2.4, "zorder": 3},
}


def _manner(trial: TrialState, best: TrialState | None) -> str:
    """How a trial's line is drawn: a key of `_LINES`."""
    if best is not None and trial.number == best.number:
        return "best"
    return trial.state if trial.state in ("stopped", "failed") else "kept"


def _joined(lines: Sequence[tuple[TrialState, list[int], list[float]]]) -> tuple[list[float], list[float]]:
    """Curves as one line with gaps between them."""
    x = [float(epoch) for _, epochs, _ in lines for epoch in (*epochs, math.nan)]
    return x, [value for _, _, values in lines for value in (*values, math.nan)]


def scatter(study: Study, state: StudyState) -> bytes | None:
    """One panel a parameter: its value against the trial's best value of the first metric."""
    points = [(trial, best.value, best.epoch) for trial in state.trials.values() if (best := trial.best(study))]
    keys = [key for key in study.space.keys if any(key in trial.params for trial, _, _ in points)]
    if not points or not keys:
        return None
    best_trial = state.best(study)
    figure, panels = figure_of(len(keys))
    for key, axes in zip(keys, panels, strict=False):
        own = [(trial, value) for trial, value, _ in points if key in trial.params]
        places = places_of(axes, study, key, [trial.params[key] for trial, _ in own])
        colors = [{"stopped": FADED, "failed": FAILED}.get(trial.state, KEPT) for trial, _ in own]
        # one call for all: of a thousand trials a call each takes seconds
        axes.scatter(places, [value for _, value in own], s=30, color=colors, alpha=0.85, zorder=2)
        for (trial, value), x in zip(own, places, strict=True):
            if best_trial is not None and trial.number == best_trial.number:
                axes.scatter([x], [value], s=70, color=WINNER, zorder=3)
        axes.set(xlabel=key, ylabel=study.metrics[0])
    return png_of(figure)


def places_of(axes: Axes, study: Study, key: str, values: Sequence[Any]) -> list[float]:
    """Where the values stand on the axis: numbers as they are, anything else by name in the order of the choices."""
    parameter = study.space[key]
    if parameter.kind == "choice":
        # an extended study may have tried what its space does not hold any more
        names = list(dict.fromkeys(parameter_value(choice) for choice in (*parameter.choices, *values)))
        shown = [name if len(name) <= 16 else f"{name[:15]}…" for name in names]
        axes.set_xticks(range(len(names)), shown, fontsize="small", rotation=0 if sum(map(len, shown)) < 32 else 20)
        axes.set_xlim(-0.5, len(names) - 0.5)
        # side by side rather than on top of each other, and the same in every report
        return [names.index(parameter_value(value)) + 0.24 * math.sin(7.0 * i) for i, value in enumerate(values)]
    if parameter.kind == "loguniform":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    return [float(value) for value in values]


def front(study: Study, state: StudyState) -> bytes | None:
    """The first two metrics against each other, the Pareto front joined; None with one metric."""
    points = [(trial, best.values) for trial in state.trials.values() if (best := trial.best(study))]
    if len(study.metrics) < 2 or not points:
        return None
    on_front = {trial.number for trial in state.front(study)}
    figure, (axes,) = figure_of(1)
    colors = [WINNER if trial.number in on_front else FADED for trial, _ in points]
    axes.scatter([values[0] for _, values in points], [values[1] for _, values in points], s=45, color=colors, zorder=2)
    for trial, values in points:
        if trial.number in on_front:
            axes.annotate(f" {trial.number}", (values[0], values[1]), fontsize="small")
    edge = sorted(values[:2] for trial, values in points if trial.number in on_front)
    axes.plot([x for x, _ in edge], [y for _, y in edge], color=WINNER, linewidth=1, zorder=1)
    axes.set(xlabel=study.metrics[0], ylabel=study.metrics[1])
    return png_of(figure)


def repeats(rows: Sequence[Mapping[str, Any]], metric: str) -> bytes | None:
    """The values of every repetition beside the one that the study saw. Rows as `parts.repeated` gives them."""
    if not rows:
        return None
    figure, (axes,) = figure_of(1)
    for place, row in enumerate(rows):
        axes.scatter([place] * len(row["values"]), row["values"], color=KEPT, s=36, label=None if place else "repeated")
        if row["mean"] is not None:
            axes.errorbar(place + 0.12, row["mean"], row["deviation"] or 0.0, fmt="_", color=KEPT, capsize=4)
        if row["study_value"] is not None:
            label = None if place else "in the study"
            axes.scatter([place], [row["study_value"]], marker="D", color=WINNER, s=48, label=label, zorder=3)
    axes.set_xticks(range(len(rows)), [f"trial {row['trial']}" for row in rows])
    axes.set(ylabel=metric, xlim=(-0.5, len(rows) - 0.5))
    axes.legend(**_SMALL)
    return png_of(figure)


def figure_of(panels: int, size: tuple[float, float] | None = None) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, three a row. `size`: inches of the whole."""
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    # not pyplot: it keeps global state
    usual = (8.4, 4.0) if panels == 1 else (3.6 * columns, 3.1 * rows)
    figure = Figure(figsize=size or usual, layout="constrained")
    FigureCanvasAgg(figure)
    found = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in found[panels:]:
        axes.set_axis_off()
    for axes in found[:panels]:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, found[:panels]


def png_of(figure: Figure) -> bytes:
    """The figure as a PNG."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
