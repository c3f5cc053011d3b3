"""Studies: leaderboard, trials by state, rungs, curves, Optuna's figures, autopsies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas
import streamlit as st

from cabruca.commands import command
from cabruca.errors import CabrucaError
from cabruca.monitor import look
from cabruca.monitor.cache import stamp
from cabruca.monitor.studies import StudyLook, autopsies_of, leaderboard, repeats_of, rungs_of, spared
from cabruca.monitor.study_figures import STATES, rung_bars, trial_curves, trials_by_state
from cabruca.tracking.short import short_number
from cabruca.tracking.study_state import ENDED
from cabruca.tracking.study_tables import epochs, parameter_value
from cabruca.words import counted

VIEWS = ("Overview", "Curves", "Optuna", "Failed trials", "Repeats")


def show() -> None:
    """The page."""
    st.title("Studies")
    names = _names()
    if not names:
        look.until_other(_names, _no_study)
        return
    name = look.choose("study", names, "Study")
    found = look.books().studies.open(name)
    view = st.segmented_control("Show", VIEWS, default="Overview", key="view of study", label_visibility="collapsed")
    live = found.live and view in ("Overview", "Curves", None)
    every = look.LIVE_S if live else look.QUIET_S
    # Optuna's figures take seconds of a core to draw, so they are drawn when asked for alone
    look.again(_body, None if view == "Optuna" else every)(name, view or "Overview", found.live, names)


def _names() -> list[str]:
    return look.books().table.names()[2]


def _no_study() -> None:
    go = command("tune", "--study", "experiments/studies/light_preset.yaml")
    where = f"`{look.books().outputs}` holds no study. Begin one, and it appears here by itself:"
    look.nothing("science", "No study yet", where, go)


def _body(name: str, view: str, was_live: bool, names: list[str]) -> None:
    found = look.books().studies.open(name)
    if found.live != was_live or _names() != names:
        st.rerun()
    _head(found)
    {
        "Overview": _overview,
        "Curves": _curves,
        "Optuna": _optuna,
        "Failed trials": _failed,
        "Repeats": _repeats,
    }[view](found)


def _head(found: StudyLook) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.badge(
            found.driver,
            icon=f":material/{look.ICONS[found.driver]}:",
            color=look.COLOURS[found.driver],  # type: ignore[arg-type]
        )
        st.caption(look.plain(found.message) or "no message")
    if found.go_on is not None:
        st.caption("Go on with it:")
        st.code(found.go_on, language="bash", wrap_lines=True)
    best = found.state.best(found.study)
    value = None if best is None else best.best(found.study)
    saving = spared(found)
    asked = max(found.study.config.num_trials, found.state.count())
    values = (
        ("Trials done", f"{found.state.count(*ENDED)} of {asked}"),
        ("At work", str(found.state.count("running"))),
        ("Failed", str(found.state.count("failed"))),
        (
            found.study.metrics[0] if best is None else f"{found.study.metrics[0]}, trial {best.number}",
            "-" if value is None else short_number(value.value),
        ),
        ("Epochs spared", f"{saving.share:.0%}" if saving.asked else "-"),
    )
    for column, (label, text) in zip(st.columns(len(values)), values, strict=True):
        column.metric(label, text, border=True)


def _overview(found: StudyLook) -> None:
    rows = leaderboard(found)
    if not rows:
        look.nothing("science", "No trial yet", "The first one appears as soon as it has been asked for.")
        return
    st.subheader("Leaderboard")
    st.caption(f"Best first; of at most {epochs(found.study.max_epochs)} a trial. A click on a head sorts by it.")
    shown: dict[str, Any] = {metric: st.column_config.NumberColumn(format="%.4f") for metric in found.study.metrics}
    shown["why it ended"] = st.column_config.TextColumn(width="large")  # a sentence
    st.dataframe(_styled(rows), hide_index=True, column_config=shown, height=min(36 + 35 * len(rows), 460))
    left, right = st.columns(2)
    with left.container(border=True):
        st.markdown("**Trials by state**")
        look.chart(trials_by_state(found.state), "trials by state")
    with right.container(border=True):
        st.markdown(f"**Rungs of {found.study.config.scheduler.type}**")
        rungs = rungs_of(found.study, found.state)
        if rungs:
            look.chart(rung_bars(rungs), "rungs")
        else:
            st.caption("This study's scheduler has no rungs, or none below its last epoch.")
    if found.folder.report.is_file():
        st.caption(f":material/description: The report of the study: `{found.folder.report}`")


def _styled(rows: Sequence[Mapping[str, Any]]) -> Any:
    """The leaderboard, its states in their colours; numbers become words on the screen alone."""
    frame = pandas.DataFrame(rows)
    whole = ["#", "trial", "at epoch", "epoch"]
    frame[whole] = frame[whole].astype("Int64")  # with gaps, where a trial has no value
    frame["elapsed"] = frame["elapsed"].astype("float64")
    params = [str(name) for name in frame.columns[list(frame.columns).index("epoch") + 1 :]]
    own: dict[str, Callable[[Any], str]] = {
        name: parameter_value for name in params if pandas.api.types.is_numeric_dtype(frame[name])
    }
    styled = frame.style.map(lambda text: f"color: {STATES.get(text[2:], '#888888')}", subset=["state"])
    return styled.format({**own, "elapsed": look.lasting}, na_rep="-")


def _curves(found: StudyLook) -> None:
    st.caption("A line a trial: the best thick, stopped ones faded, failed ones dashed; rungs dotted.")
    for metric in found.study.metrics:
        with st.container(border=True):
            st.markdown(f"**{metric}**")
            look.chart(trial_curves(found.study, found.state, metric), f"trials {metric}")


def _optuna(found: StudyLook) -> None:
    from cabruca.monitor import optuna_figures as figures  # here: Optuna is needed on no other page

    path = found.folder.optuna_db
    own = look.books().optuna.get(path, stamp(path), lambda: figures.open_study(path, found.study.config.name))
    metrics = found.study.metrics
    left, right = st.columns([4, 2], vertical_alignment="bottom")
    titles = figures.titles_for(own)
    title = left.segmented_control("Figure", titles, default=titles[0], key="figure of study") or titles[0]
    metric = right.selectbox("Metric", metrics, key="metric of figure") if len(metrics) > 1 else metrics[0]
    try:
        figure = figures.draw(own, title, metrics, metrics.index(metric))
    except CabrucaError as error:
        look.nothing("query_stats", title, str(error))
        return
    figure.update_layout(height=720 if title == "Contour" else 460)
    with st.container(border=True):
        look.chart(figure, f"optuna {title}")
    more = command("ui", "optuna", "--study", found.folder.path)
    st.caption(f"{figures.told_of(own, title)} Drawn by Optuna from `{path.name}`. More of it: `{more}`")


def _failed(found: StudyLook) -> None:
    failed = autopsies_of(found)
    if not failed:
        look.nothing("check_circle", "No trial has failed", "An autopsy of each that does is shown here.")
        return
    for one in failed:
        with st.expander(
            f"Trial {one.trial}: {look.plain(one.reason)}", icon=":material/error:", expanded=len(failed) == 1
        ):
            memory = f", at most {one.memory}" if one.memory else ""
            st.caption(f"Failed after {counted(one.epoch, 'epoch')}{memory}.")
            if one.differs:
                table = [{"parameter": key, "its": a, "the best's": b} for key, (a, b) in one.differs.items()]
                st.dataframe(table, hide_index=True)
            if one.trace:
                st.code("\n".join(one.trace), language="python")


def _repeats(found: StudyLook) -> None:
    rows = repeats_of(found)
    if not rows:
        go = command("tune", "repeat", found.folder.path)
        text = "Winners of short runs are often luck. Train the best ones again with other seeds:"
        look.nothing("casino", "No repeats yet", text, go)
        return
    st.caption(f"{found.study.metrics[0]} over further seeds, beside the value that won in the study.")
    st.dataframe(
        [
            {
                "trial": row["trial"],
                "mean": row["mean"],
                "deviation": row["deviation"],
                "in the study": row["study_value"],
                "values": ", ".join(short_number(value) for value in row["values"]),
            }
            for row in rows
        ],
        hide_index=True,
    )
