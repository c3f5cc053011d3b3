"""Run: live curves, the machine, pictures, configuration, environment, log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from cabruca.monitor import look
from cabruca.monitor.curves import GROUPS, SYSTEM, Axis, best_point, curve, grouped
from cabruca.monitor.figures import curves_figure
from cabruca.monitor.left import environment_of, settings_of, tail
from cabruca.monitor.places import run_at
from cabruca.monitor.rows import Rows
from cabruca.monitor.runs import RunFacts
from cabruca.monitor.views import pictures
from cabruca.tracking.run_dir import RunDir

FITS = 14
"""Characters of a value that its card shows on a narrow screen; longer ones are told whole beside the label."""

VIEWS = ("Curves", "System", "Pictures", "Configuration", "Environment", "Log")


def show() -> None:
    """The page."""
    st.title("Run")
    name = look.choose_run()
    if name is None:
        return
    rows = look.books().rows(name)
    rows.advance(0.1)
    facts = look.books().table.look_at(name)
    view = st.segmented_control("Show", VIEWS, default="Curves", key="view of run", label_visibility="collapsed")
    axis, smoothing = _controls() if view in ("Curves", "System") else ("epoch", 0.0)
    busy = (facts.live and view != "Pictures") or not rows.complete
    every = look.LIVE_S if busy else look.QUIET_S
    live = view in ("Curves", "System", "Pictures", "Log")
    look.again(_body, every if live else None)(name, view or "Curves", axis, smoothing, facts.live)


def _controls() -> tuple[Axis, float]:
    left, right, _ = st.columns([2, 2, 3], vertical_alignment="bottom")
    axes: tuple[Axis, ...] = ("epoch", "step", "time")
    axis = left.segmented_control("Over", axes, default=axes[0], key="axis of run")
    smoothing = right.slider("Smoothing", 0.0, 0.98, 0.0, 0.02, key="smoothing of run", help="Weight of the past.")
    return axis or "epoch", smoothing


def _body(name: str, view: str, axis: Axis, smoothing: float, was_live: bool) -> None:
    facts = look.books().table.look_at(name)
    if facts.live != was_live:
        st.rerun()
    _head(facts)
    run, rows = run_at(look.books().outputs, name), look.books().rows(name)
    rows.advance(0.8)
    if not rows.complete:
        st.info(f"Reading metrics.jsonl: {len(rows):,} rows so far ...", icon=":material/hourglass_top:")
    if view == "Curves":
        _curves(rows, GROUPS, axis, smoothing, run=run, monitor=facts.monitor)
    elif view == "System":
        _now(rows)
        _curves(rows, SYSTEM, axis, smoothing)
    elif view == "Pictures":
        pictures.show(run, rows)
    elif view == "Configuration":
        _configuration(run)
    elif view == "Environment":
        _environment(run)
    else:
        _log(run)


def _head(facts: RunFacts) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        look.badge(facts)
        for tag in facts.notes.tags:
            st.badge(look.plain(tag), color="violet")
        st.caption(f"last sign of life {look.ago(facts.heartbeat)} · {look.plain(facts.message) or 'no message'}")
    if facts.notes.note:
        st.caption(f":material/sticky_note_2: {look.plain(facts.notes.note)}")
    look.trouble(facts)
    best = "-" if facts.best is None else f"{facts.best:.4f}"
    at = "" if facts.best_epoch is None else f", best at epoch {facts.best_epoch}"
    of = f" of {facts.epochs}" if facts.epochs else ""
    values: tuple[tuple[str, str], ...] = (
        (f"{facts.monitor or 'monitored'}{at}", best),
        ("Epoch", f"{facts.epoch}{of}"),
        ("Elapsed", look.lasting(facts.elapsed_s)),
        ("Device", facts.device or "-"),
        ("Size", look.size(facts.bytes)),
    )
    for column, (label, value) in zip(st.columns([1.7, 1, 1, 1.3, 1]), values, strict=True):
        column.metric(label, value, border=True, help=look.plain(value) if len(value) > FITS else None)


def _curves(
    rows: Rows,
    groups: Sequence[tuple[str, tuple[str, ...]]],
    axis: Axis,
    smoothing: float,
    *,
    run: RunDir | None = None,
    monitor: str = "",
) -> None:
    found = grouped(rows.names, groups)
    if not found:
        look.nothing("show_chart", "No numbers yet", "The first row comes after `training.log_interval` steps.")
        return
    minimize = run is not None and look.minimizes(run)
    columns = st.columns(2)
    for place, (title, names) in enumerate(found.items()):
        best = best_point(rows, monitor, axis, minimize=minimize) if monitor in names else None
        with columns[place % 2].container(border=True):
            st.markdown(f"**{title}**")
            lines = [curve(rows, name, axis, smoothing=smoothing) for name in names]
            look.chart(curves_figure(lines, axis, best=best, log=title == "Learning rate"), f"curves {title}")


def _now(rows: Rows) -> None:
    """The newest value of the most asked for."""
    asked = (
        ("Pictures a second", "time/images_per_s", "{:.1f}"),
        ("CPU", "system/cpu_percent", "{:.0f} %"),
        ("Memory of the process", "system/process_rss_mb", "{:,.0f} MB"),
        ("Memory of the machine", "system/ram_percent", "{:.0f} %"),
        ("GPU", "system/gpu_percent", "{:.0f} %"),
        ("GPU memory", "system/gpu_memory_mb", "{:,.0f} MB"),
        ("Disk free", "system/disk_free_gb", "{:.1f} GB"),
    )
    values = [(label, text, rows.column(name)[1]) for label, name, text in asked]
    known = [(label, text.format(numbers[-1])) for label, text, numbers in values if len(numbers)]
    for column, (label, value) in zip(st.columns(max(len(known), 1)), known, strict=False):
        column.metric(label, value, border=True)


def _configuration(run: RunDir) -> None:
    settings = settings_of(run)
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    only = left.toggle("Only what differs from the defaults", value=True, key="only differences")
    words = right.text_input("Search", placeholder="optimizer.lr", key="search settings").lower()
    shown = [one for one in settings if (one.differs or not only) and words in one.key.lower()]
    st.caption(f"{sum(one.differs for one in settings)} of {len(settings)} keys differ from the defaults of today.")
    table: list[dict[str, Any]] = [
        {
            "": "●" if one.differs else "",
            "key": one.key,
            "value": look.as_text(one.value),
            "default": look.as_text(one.default),
        }
        for one in shown
    ]
    if table:
        st.dataframe(table, hide_index=True, height=min(36 + 35 * len(table), 560))
    with st.expander("config.yaml", icon=":material/description:"):
        st.code(look.config_text(run), language="yaml")


def _environment(run: RunDir) -> None:
    found = environment_of(run)
    if not found:
        look.nothing("memory", "No environment yet", "`environment.json` is written when a run begins.")
        return
    st.dataframe([{"what": key, "value": value} for key, value in found.items()], hide_index=True, height=560)


def _log(run: RunDir) -> None:
    text = tail(run.log)
    if not text:
        look.nothing("notes", "No log yet", "`train.log` is written when training begins.")
        return
    st.caption("The last 200 lines of train.log")
    st.code(text, language="log", height=560)
