"""Plotly figures of runs. They have no background of their own: Streamlit lays its light or dark theme over each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cabruca.monitor.curves import Axis, Curve

BEST = "#e8762d"
"""Of what is best; readable on light and on dark."""

LINES = ("#4f9d76", "#d9703a", "#5b8fd6", "#c99a2e", "#9b72c8", "#35abab", "#b07f68", "#8b95a1")
"""Of the lines of a figure, in order; each readable on light and on dark."""

HEIGHT_PX = 310

AXIS_TITLES: Mapping[Axis, str] = {"epoch": "epoch", "step": "optimizer step", "time": "minutes"}

_MARKERS_BELOW = 40
"""A curve of fewer points shows them."""


def empty(height: int = HEIGHT_PX) -> Any:
    """A figure with the margins and the legend that all have."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 28, "b": 8},
        colorway=LINES,
        # above: below, the title of the axis would lie on its lines
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "title": None},
        hovermode="x unified",
        uirevision="kept",  # what the reader has zoomed to stays when new points come
    )
    return figure


def curves_figure(
    curves: Sequence[Curve],
    axis: Axis,
    *,
    names: Sequence[str] | None = None,
    best: tuple[float, float] | None = None,
    log: bool = False,
) -> Any:
    """Lines over the epochs, steps or minutes.

    Args:
        names: of the lines in the legend; None: those of the metrics, less what all of them begin with.
        best: a point that is marked with a star.
    """
    figure = empty()
    scale = 60.0 if axis == "time" else 1.0
    for one, name in zip(curves, names or short_names([one.name for one in curves]), strict=True):
        mode = "lines+markers" if len(one.x) < _MARKERS_BELOW else "lines"
        figure.add_scatter(x=one.x / scale, y=one.y, name=name, mode=mode, marker={"size": 5}, line={"width": 2})
    if best is not None:
        figure.add_scatter(
            x=[best[0] / scale],
            y=[best[1]],
            name=f"best {best[1]:.4g}",
            mode="markers",
            marker={"symbol": "star", "size": 14, "color": BEST, "line": {"width": 1, "color": "white"}},
        )
    # one line alone would have no legend, and then no name
    figure.update_layout(xaxis_title=AXIS_TITLES[axis], showlegend=True)
    figure.update_yaxes(type="log" if log else "linear", tickformat="~g", exponentformat="power")
    return figure


def short_names(names: Sequence[str]) -> list[str]:
    """`val/mAP` and `val/mAP_50` as `mAP` and `mAP_50`; names of several sections stay whole."""
    heads = {name.partition("/")[0] for name in names}
    return [name.partition("/")[2] or name for name in names] if len(heads) == 1 else list(names)


def parallel_figure(columns: Mapping[str, Sequence[Any]], colour: str | None) -> Any:
    """Parallel coordinates: a line a run (or trial), an axis a column; texts stand on an axis of their own.

    Args:
        columns: title -> value of each line; None where it has none (its line is left out).
        colour: the column that colours the lines.
    """
    import plotly.graph_objects as go

    whole = [i for i in range(_length(columns)) if all(values[i] is not None for values in columns.values())]
    kept = {title: [values[i] for i in whole] for title, values in columns.items()}
    line: dict[str, Any] = {"color": BEST}
    if colour is not None and len(set(kept[colour])) > 1:
        line = {"color": kept[colour], "colorscale": "Viridis", "showscale": True}
    figure = go.Figure(go.Parcoords(line=line, dimensions=[_dimension(*item) for item in kept.items()]))
    figure.update_layout(height=420, margin={"l": 90, "r": 60, "t": 70, "b": 30})
    return figure


def _length(columns: Mapping[str, Sequence[Any]]) -> int:
    return len(next(iter(columns.values()), ()))


def _dimension(title: str, values: Sequence[Any]) -> dict[str, Any]:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numbers and len(set(values)) > 1 and _wide(values):
        places = np.log10(np.array(values, dtype=float))
        ticks = np.linspace(places.min(), places.max(), 5)
        return {"label": title, "values": places, "tickvals": ticks, "ticktext": [f"{10**t:.2g}" for t in ticks]}
    if numbers:
        return {"label": title, "values": list(values)}
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    known = list(dict.fromkeys(texts))
    shown = [text if len(text) <= 18 else f"{text[:7]}…{text[-10:]}" for text in known]
    return {
        "label": title,
        "values": [known.index(text) for text in texts],
        "tickvals": list(range(len(known))),
        "ticktext": shown,
    }


def _wide(values: Sequence[float]) -> bool:
    """Whether the numbers span so much that a logarithmic axis shows them better."""
    return min(values) > 0 and max(values) / min(values) > 30
