"""More pictures of the report: what mattered, parameters together, when trials ran, how many reached each rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator

from cabruca.config.study import Study
from cabruca.study_report.plots import FADED, FAILED, KEPT, WINNER, figure_of, places_of, png_of
from cabruca.tracking.study_state import StudyState, TrialState
from cabruca.tracking.study_tables import parameter_value, short_names

COLORS = {"finished": KEPT, "stopped": FADED, "failed": FAILED, "running": "#1c6e8c"}
MOST_BARS = 60
"""Trials of a timeline; of more, the newest."""

BAR_PT = 7.0
"""Thickness of a bar of the timeline, in points."""

MOST_KEYS = 10
"""Axes of parallel coordinates."""


def importance(shares: Mapping[str, float]) -> bytes | None:
    """A bar a parameter, the most important above."""
    if not shares:
        return None
    figure, (axes,) = figure_of(1, (8.4, 0.9 + 0.34 * len(shares)))
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color=KEPT, height=0.6)
    axes.bar_label(bars, fmt=lambda share: f" {share:.0%}", fontsize="small")
    axes.set(xlabel="share of the differences that it explains", xlim=(0, 1.08 * max(shares.values()) or 1))
    axes.grid(visible=False, axis="y")
    return png_of(figure)


def together(study: Study, state: StudyState, shares: Mapping[str, float]) -> bytes | None:
    """The two parameters that matter most against each other, the trials' values as colours; None with one."""
    keys = [*(key for key in shares), *(key for key in study.space.keys if key not in shares)][:2]
    own = [t for t in _valued(study, state) if all(key in t.params for key in keys)]
    if len(keys) < 2 or len(own) < 4:
        return None
    figure, (axes,) = figure_of(1)
    x = places_of(axes, study, keys[0], [t.params[keys[0]] for t in own])
    y = _upright(study, keys[1], own, axes)
    values = [_value(study, t) for t in own]
    dots = axes.scatter(x, y, c=values, cmap=_map(study), s=60, edgecolor="white", linewidth=0.6, zorder=2)
    best = state.best(study)
    for place, trial in enumerate(own):
        if best is not None and trial.number == best.number:
            axes.scatter([x[place]], [y[place]], s=190, facecolor="none", edgecolor=WINNER, linewidth=2, zorder=3)
    figure.colorbar(dots, ax=axes, label=study.metrics[0])
    axes.set(xlabel=keys[0], ylabel=keys[1])
    return png_of(figure)


def _upright(study: Study, key: str, own: Sequence[TrialState], axes: Axes) -> list[float]:
    """Places on the upright axis."""
    values = [t.params[key] for t in own]
    parameter = study.space[key]
    if parameter.kind == "choice":
        names = list(dict.fromkeys(map(parameter_value, (*parameter.choices, *values))))
        axes.set_yticks(range(len(names)), [_cut(name, 16) for name in names], fontsize="small")
        axes.set_ylim(-0.5, len(names) - 0.5)
        return [float(names.index(parameter_value(value))) for value in values]
    if parameter.kind == "loguniform":
        axes.set_yscale("log")
    return [float(value) for value in values]


def parallel(study: Study, state: StudyState) -> bytes | None:
    """A line a trial through all its parameters to its value; the best is thick. None with one parameter."""
    keys = list(study.space.keys)[:MOST_KEYS]
    own = [t for t in _valued(study, state) if any(key in t.params for key in keys)]
    if len(keys) < 2 or len(own) < 2:
        return None
    figure, (axes,) = figure_of(1, (max(8.4, 1.5 * len(keys)), 4.2))
    columns = [_scaled(study, key, own, axes, place) for place, key in enumerate(keys)]
    values = [_value(study, t) for t in own]
    columns.append(_numbers(values, axes, len(keys), log=False))
    best, lines = state.best(study), [list(enumerate(line)) for line in zip(*columns, strict=True)]
    axes.add_collection(LineCollection(lines, array=values, cmap=_map(study), linewidth=1.1, alpha=0.9, zorder=2))
    for line, trial in zip(lines, own, strict=True):
        if best is not None and trial.number == best.number:
            axes.plot(*zip(*line, strict=True), color=WINNER, linewidth=2.6, alpha=0.9, zorder=3)
    names = short_names(keys)
    axes.set_xticks(range(len(keys) + 1), [*(names[key] for key in keys), study.metrics[0]], fontsize="small")
    axes.set_yticks([])
    axes.set(xlim=(-0.3, len(keys) + 0.5), ylim=(-0.06, 1.06))
    axes.spines[:].set_visible(False)
    axes.grid(visible=True, axis="x", color="#999999", alpha=0.6)
    return png_of(figure)


def _scaled(study: Study, key: str, own: Sequence[TrialState], axes: Axes, place: int) -> list[float]:
    """0 to 1 of each trial; of one without the parameter NaN, so that its line has a gap."""
    parameter = study.space[key]
    if parameter.kind != "choice":
        values = [float(t.params[key]) if key in t.params else np.nan for t in own]
        return _numbers(values, axes, place, log=parameter.kind == "loguniform")
    tried = [t.params[key] for t in own if key in t.params]
    names = list(dict.fromkeys(map(parameter_value, (*parameter.choices, *tried))))
    for k, name in enumerate(names):
        axes.text(place + 0.03, k / max(len(names) - 1, 1), _cut(name, 22), fontsize="x-small", va="bottom", zorder=5)
    at = {name: k / max(len(names) - 1, 1) for k, name in enumerate(names)}
    return [at[parameter_value(t.params[key])] if key in t.params else np.nan for t in own]


def _numbers(values: Sequence[float], axes: Axes, place: int, *, log: bool) -> list[float]:
    found = np.log(values) if log else np.asarray(values, dtype=np.float64)
    low, high = np.nanmin(found), np.nanmax(found)
    for end, at in ((np.nanmin(values), 0.0), (np.nanmax(values), 1.0)):
        side = "top" if at == 0 else "bottom"
        axes.text(place + 0.03, at, parameter_value(float(end)), fontsize="x-small", va=side, zorder=5)
    scaled = (found - low) / (high - low) if high > low else np.where(np.isnan(found), np.nan, 0.5)
    return [float(value) for value in scaled]


def timeline(state: StudyState) -> bytes | None:
    """When each trial was asked and when it ended, in minutes since the first; None where no trial has ended."""
    own = [t for t in state.trials.values() if t.asked_at and t.ended_at]
    if not own:
        return None
    start = min(t.asked_at for t in own)
    shown = sorted(own, key=lambda t: t.number)[-MOST_BARS:]
    figure, (axes,) = figure_of(1, (8.4, 1.0 + 0.16 * len(shown)))
    began = [(trial.asked_at - start) / 60 for trial in shown]
    ended = [max((trial.ended_at or 0.0) - start, 60 * at + 0.6) / 60 for trial, at in zip(shown, began, strict=True)]
    colors = [COLORS.get(trial.state, FADED) for trial in shown]
    axes.hlines([trial.number for trial in shown], began, ended, colors=colors, linewidth=BAR_PT)
    axes.set(xlabel="minutes since the first trial was asked", ylabel="trial")
    axes.set_ylim(shown[-1].number + 0.7, shown[0].number - 0.7)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    for name in dict.fromkeys(t.state for t in shown):
        axes.scatter([], [], marker="s", color=COLORS.get(name, FADED), label=name)
    axes.legend(fontsize="small", frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return png_of(figure)


def rungs(study: Study, state: StudyState) -> bytes | None:
    """How many trials came to each rung, and how many of them were stopped there; None where nothing was stopped."""
    stopped = [t.rung for t in state.trials.values() if t.state == "stopped" and t.rung is not None]
    if not stopped:
        return None
    ends = [*sorted(set(stopped)), study.max_epochs]
    came = [sum(t.epoch >= end for t in state.trials.values()) for end in ends]
    figure, (axes,) = figure_of(1, (8.4, 2.6))
    axes.bar([str(end) for end in ends], came, color=KEPT, width=0.6, label="went on, or finished")
    gone = [stopped.count(end) for end in ends]
    axes.bar([str(end) for end in ends], gone, color=FADED, width=0.6, label="stopped here")
    axes.set(xlabel="epoch of the rung", ylabel="trials that came so far")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))

    axes.legend(fontsize="small", frameon=False)
    return png_of(figure)


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _valued(study: Study, state: StudyState) -> list[TrialState]:
    return [t for t in state.trials.values() if t.state != "failed" and t.best(study) is not None]


def _value(study: Study, trial: TrialState) -> float:
    best = trial.best(study)
    assert best is not None
    return best.value


def _map(study: Study) -> Any:
    """Dark is good; the palest quarter of the map cannot be seen on white."""
    colors = colormaps["YlGn"](np.linspace(0.25, 1.0, 256))
    return ListedColormap(colors if study.directions[0] == "maximize" else colors[::-1])
