"""Compare: curves over each other, metrics side by side, what the configurations differ in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas
import streamlit as st

from cabruca.monitor import look
from cabruca.monitor.compare import (
    MOST_SETTINGS,
    best_places,
    coordinates_of,
    curves_of,
    direction_of,
    metrics_of,
    stories_of,
)
from cabruca.monitor.figures import curves_figure, parallel_figure
from cabruca.tracking.comparison import Comparison, compare
from cabruca.tracking.runs import Story

_BETTER = "background-color: rgba(79, 157, 118, 0.28); font-weight: 600"


def show() -> None:
    """The page."""
    st.title("Compare")
    names = _choose()
    if names is None:
        return
    live = _live(names)
    smoothing = st.columns([2, 5])[0].slider("Smoothing", 0.0, 0.98, 0.0, 0.02, key="smoothing of comparison")
    look.again(_body, look.LIVE_S if live else look.QUIET_S)(names, smoothing, live)


def _live(names: Sequence[str]) -> bool:
    return any(one.live for one in look.books().table.all(trials=True) if one.name in names)


def _known() -> list[str]:
    return sorted(one.name for one in look.books().table.all(trials=True))


def _choose() -> list[str] | None:
    everything = look.books().table.all(trials=True)
    if not everything:
        look.until_other(_known, look.no_runs)
        return None
    known = [one.name for one in everything]
    key, kept = "choice of runs to compare", "runs to compare"
    asked = st.session_state.setdefault(kept, [one.name for one in everything if one.best is not None][:2])
    # under its key: a widget whose default changes with its value is a new widget, and forgets every second change
    st.session_state[key] = [name for name in st.session_state.get(key, asked) if name in known]
    names = st.multiselect("Runs", known, key=key, placeholder="two runs or more")
    st.session_state[kept] = names
    if len(names) < 2:
        look.until_other(_known, _too_few)
        return None
    return names


def _too_few() -> None:
    look.nothing("compare_arrows", "Nothing to compare yet", "Choose two runs or more above.")


def _body(names: Sequence[str], smoothing: float, was_live: bool) -> None:
    if _live(names) != was_live:
        st.rerun()
    stories, left_out = stories_of(look.books().outputs, names)
    for line in left_out:
        st.warning(look.plain(line), icon=":material/hourglass_empty:")
    if not stories:
        return
    _curves(stories, smoothing)
    found = compare(stories, metrics_of(stories))
    st.subheader("Metrics")
    st.caption("At each run's best epoch by its own monitored metric. The best value of a row is marked.")
    _metrics(stories, found)
    st.subheader("Configurations")
    _settings(found)
    if len(stories) > 1 and found.settings:
        st.subheader("Parallel coordinates")
        if len(found.settings) > MOST_SETTINGS:
            st.caption(f"Of {len(found.settings)} settings that differ, the first {MOST_SETTINGS}.")
        columns = coordinates_of(stories, stories[0].monitor)
        look.chart(parallel_figure(columns, stories[0].monitor), "parallel coordinates")


def _curves(stories: Sequence[Story], smoothing: float) -> None:
    known = metrics_of(stories)
    usual = [name for name in (stories[0].monitor, "val/total_loss", "train/total_loss", "lr/default") if name in known]
    chosen = st.multiselect("Curves", known, usual or known[:2], key="metrics to compare")
    columns = st.columns(2)
    for place, metric in enumerate(chosen):
        with columns[place % 2].container(border=True):
            st.markdown(f"**{metric}**")
            lines = curves_of(stories, metric, smoothing)
            figure = curves_figure(lines, "epoch", names=[line.name for line in lines], log=metric.startswith("lr/"))
            look.chart(figure, f"compared {metric}")


def _metrics(stories: Sequence[Story], found: Comparison) -> None:
    table = {name: [best for best, _ in row] for name, row in found.metrics.items()}
    best = {name: best_places(name, row, minimize=direction_of(stories, name)) for name, row in table.items()}
    epochs = [float(epoch) if epoch is not None else None for epoch in found.best_epoch]
    frame = pandas.DataFrame.from_dict({"epoch": epochs, **table}, orient="index", columns=list(found.names))
    frame = frame.astype(float)

    def marked(row: Any) -> list[str]:
        return [_BETTER if i in best.get(str(row.name), ()) else "" for i in range(len(row))]

    styled = frame.style.apply(marked, axis=1).format("{:.5g}", na_rep="-")
    st.dataframe(styled, height=min(36 + 35 * len(frame), 640))


def _settings(found: Comparison) -> None:
    if not found.settings:
        st.caption("The configurations are the same but for name and folder.")
        return
    rows = {key: [look.as_text(value) for value in values] for key, values in found.settings.items()}
    st.dataframe(pandas.DataFrame.from_dict(rows, orient="index", columns=list(found.names)))
