"""Runs: the table, search, tags and notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas
import streamlit as st

from cabruca.errors import CabrucaError
from cabruca.monitor import look
from cabruca.monitor.notes import write_notes
from cabruca.monitor.places import run_at
from cabruca.monitor.runs import RunFacts, best_first, last_at_work, matching

_STATES = ("running", "starting", "finished", "stopped", "interrupted", "failed", "died", "unknown")
_ORDER: dict[str, Callable[[RunFacts], Any]] = {
    "last at work": last_at_work,
    "name": lambda one: one.name,
    "best value": best_first,
    "size": lambda one: -one.bytes,
    "time it took": lambda one: -(one.elapsed_s or 0.0),
}

_WHOLE = ["at epoch", "epoch", "of"]
_SHOWN: dict[str, Callable[[float], str]] = {"elapsed": look.lasting, "size": look.size, "last sign": look.ago}


def show() -> None:
    """The page."""
    st.title("Runs")
    st.caption(f":material/folder: {look.books().outputs}")
    words, states, order, trials = _controls()
    live = any(one.live for one in look.books().table.all(trials=trials))
    every = look.LIVE_S if live else look.QUIET_S
    look.again(_table, every)(words, states, order, trials, live)


def _controls() -> tuple[str, list[str], str, bool]:
    search, state, sort, of_studies = st.columns([3, 2, 1.5, 1.5], vertical_alignment="bottom")
    words = search.text_input("Search", placeholder="name, tag, note, device ...", key="search runs")
    states = state.multiselect("State", _STATES, placeholder="any", key="states of runs")
    order = sort.selectbox("Sort by", list(_ORDER), key="order of runs")
    trials = of_studies.toggle("Trials of studies", key="with trials", help="Also the runs that studies have made.")
    return words, states, order, trials


def _table(words: str, states: Sequence[str], order: str, trials: bool, was_live: bool) -> None:
    everything = look.books().table.all(trials=trials)
    if any(one.live for one in everything) != was_live:
        st.rerun()
    if not everything:
        look.no_runs()
        return
    found = sorted(matching(everything, words, states), key=_ORDER[order])
    _numbers(everything)
    if not found:
        look.nothing("search_off", "Nothing found", "No run answers to this search; take a word away.")
        return
    picked = st.dataframe(
        _styled(found),
        # ticks belong to rows: where other runs stand in them, there are none
        key=f"table of runs {' '.join(one.name for one in found)}",
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        column_config=_columns(),
        height=min(36 + 35 * len(found), 640),
    )
    rows = [found[i] for i in picked["selection"]["rows"] if i < len(found)]
    _actions(rows)
    _notes(found, rows)


def _numbers(everything: Sequence[RunFacts]) -> None:
    live = sum(one.live for one in everything)
    bad = sum(one.state in ("died", "failed") for one in everything)
    total = sum(one.bytes for one in everything)
    values = (("Runs", str(len(everything))), ("At work", str(live)), ("Failed or died", str(bad)))
    for column, (label, value) in zip(st.columns(4), (*values, ("On the disk", look.size(total))), strict=True):
        column.metric(label, value, border=True)


def _row(one: RunFacts) -> dict[str, Any]:
    done = one.epoch / one.epochs if one.epochs else None
    return {
        "state": f"● {one.state}",
        "name": one.name,
        "metric": one.monitor or None,
        "best": one.best,
        "at epoch": one.best_epoch,
        "epoch": one.epoch,
        "of": one.epochs,
        "done": done,
        "device": one.device or None,
        "elapsed": one.elapsed_s,
        "size": one.bytes,
        "last sign": one.heartbeat,
        "tags": list(one.notes.tags),
        "note": one.notes.note.partition("\n")[0],
    }


def _styled(found: Sequence[RunFacts]) -> Any:
    """The table, its states in their colours; numbers become words on the screen alone, so they can be sorted."""
    frame = pandas.DataFrame([_row(one) for one in found])
    frame[_WHOLE] = frame[_WHOLE].astype("Int64")  # with gaps, where a run has no value
    frame[list(_SHOWN)] = frame[list(_SHOWN)].astype("float64")
    styled = frame.style.map(lambda text: f"color: {look.HEX[text[2:]]}", subset=["state"])
    return styled.format(_SHOWN, na_rep="-")


def _columns() -> dict[str, Any]:
    column = st.column_config
    return {
        "name": column.TextColumn(width="medium"),
        "best": column.NumberColumn(format="%.4f"),
        "done": column.ProgressColumn(min_value=0, max_value=1, format="percent", width="small"),
        "tags": column.ListColumn(width="small"),
        "note": column.TextColumn(width="large"),
    }


def _actions(rows: Sequence[RunFacts]) -> None:
    """Buttons for the rows that are ticked."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Open", icon=":material/show_chart:", disabled=len(rows) != 1):
            look.go_to("Run", run=rows[0].name)
        if st.button("Compare", icon=":material/compare_arrows:", disabled=len(rows) < 2):
            st.session_state["runs to compare"] = [one.name for one in rows]
            look.go_to("Compare")
        if st.button("Checkpoints", icon=":material/save:", disabled=len(rows) != 1):
            look.go_to("Checkpoints", run=rows[0].name)
        st.caption("Tick one run to open it, two or more to compare them.")


def _notes(found: Sequence[RunFacts], rows: Sequence[RunFacts]) -> None:
    with st.expander("Tags and notes", icon=":material/sell:", expanded=len(rows) == 1):
        names = [one.name for one in found]
        name = rows[0].name if len(rows) == 1 else st.selectbox("Of run", names, key="run to note")
        own = next(one.notes for one in found if one.name == name)
        with st.form(f"notes of {name}", border=False):
            tags = st.text_input("Tags, separated by commas", ", ".join(own.tags), key=f"tags of {name}")
            note = st.text_area("Note", own.note, key=f"note of {name}")
            if st.form_submit_button("Save", icon=":material/check:"):
                try:
                    write_notes(run_at(look.books().outputs, name), tags.split(","), note)
                except CabrucaError as error:
                    st.error(look.plain(str(error)))
                else:
                    st.toast(f"Noted of {name}", icon=":material/check:")
                    st.rerun()
