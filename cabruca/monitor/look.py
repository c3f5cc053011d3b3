"""What all pages share: the data side of this server, the chosen run, badges, empty pages, errors in one line."""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import streamlit as st

from cabruca.commands import command
from cabruca.config.load import read_own, redact, to_yaml
from cabruca.errors import CabrucaError
from cabruca.monitor.cache import Kept
from cabruca.monitor.checkpoints import CheckpointBooks
from cabruca.monitor.outputs import outputs_folder
from cabruca.monitor.places import run_at
from cabruca.monitor.rows import Rows
from cabruca.monitor.runs import RunFacts, RunTable, resume_command, why_dead
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.short import duration

if TYPE_CHECKING:
    from cabruca.monitor.crowns import Crowns, Overview
    from cabruca.monitor.studies import StudyShelf

P = ParamSpec("P")

LIVE_S, QUIET_S = 2.0, 10.0
"""Seconds between two looks at a run that is at work, and at what is not."""

COLOURS = {
    **{"starting": "blue", "running": "blue", "finished": "green", "stopped": "gray"},
    **{"interrupted": "orange", "failed": "red", "died": "red", "unknown": "gray"},
}
HEX = {
    **{"starting": "#3b7dc4", "running": "#3b7dc4", "finished": "#3a9163", "stopped": "#888888"},
    **{"interrupted": "#c98a1b", "failed": "#d64545", "died": "#d64545", "unknown": "#888888"},
}
"""The same in tables, readable on light and on dark."""

ICONS = {
    **{"starting": "hourglass_top", "running": "directions_run", "finished": "check_circle", "stopped": "stop_circle"},
    **{"interrupted": "pause_circle", "failed": "error", "died": "heart_broken", "unknown": "help"},
}


@dataclass
class Books:
    """The data side; one a server, shared by all sessions."""

    outputs: Path
    table: RunTable = field(init=False)
    checkpoints: CheckpointBooks = field(init=False)
    optuna: Kept[Any] = field(default_factory=lambda: Kept(10))
    crowns: Kept[Crowns] = field(default_factory=lambda: Kept(4))
    steps: Kept[dict[int, list[Path]]] = field(default_factory=lambda: Kept(200))
    earlier: Kept[dict[str, bytes]] = field(default_factory=lambda: Kept(40))
    overviews: Kept[Overview] = field(default_factory=lambda: Kept(8))
    _rows: Kept[Rows] = field(default_factory=lambda: Kept(50))

    def __post_init__(self) -> None:
        self.table, self.checkpoints = RunTable(self.outputs), CheckpointBooks(self.outputs)

    @cached_property
    def studies(self) -> StudyShelf:
        """Studies below the folder; imported when the first is asked for."""
        from cabruca.monitor.studies import StudyShelf

        return StudyShelf(self.outputs)

    def rows(self, name: str) -> Rows:
        """The rows of a run, as far as they were read."""
        path = run_at(self.outputs, name).metrics
        return self._rows.get(path, None, lambda: Rows(path))


@st.cache_resource(show_spinner=False)
def _books(outputs: str) -> Books:
    return Books(Path(outputs))


def books() -> Books:
    """Those of the folder that the command was given."""
    return _books(outputs_folder())


def page(module: str) -> Callable[[], None]:
    """The page of that module; its errors for people are a line and no traceback."""

    def show() -> None:
        importlib.import_module(module).show()

    show.__name__ = module.rpartition(".")[2]
    return guarded(show)


def guarded(function: Callable[P, None]) -> Callable[P, None]:
    """The function, but that its errors for people are a line in its place and no traceback, here or in the log."""

    @wraps(function)
    def safe(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except CabrucaError as error:
            st.error(plain(str(error)), icon=":material/error:")

    return safe


def again(function: Callable[P, None], every_s: float | None) -> Callable[P, None]:
    """The part of a page that `function` draws, guarded, and drawn anew every so many seconds; None: never."""
    drawn: Callable[P, None] = st.fragment(guarded(function), run_every=every_s)
    return drawn


def until_other(look: Callable[[], object], draw: Callable[[], None]) -> None:
    """What a page draws that has nothing to show, until `look` gives something else than now: then the page anew."""
    before = look()

    def waiting() -> None:
        if look() != before:
            st.rerun()
        draw()

    again(waiting, QUIET_S)()


def plain(text: str) -> str:
    """Text out of a file, an address or an error, to be shown as it stands: nothing in it is Markdown."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def go_to(title: str, **chosen: str) -> None:
    """Switch to another page of this session."""
    st.switch_page(st.session_state["pages"][title], query_params=chosen)


def choose(what: str, names: Sequence[str], label: str) -> str:
    """A selectbox that the address keeps (`?run=name`) and that stays when pages are switched."""
    key, kept = f"choice of {what}", f"last {what}"
    if st.session_state.get(key) not in names:
        asked = (st.query_params.get(what), st.session_state.get(kept), names[0])
        st.session_state[key] = next(name for name in asked if name in names)
    chosen = str(st.selectbox(label, names, key=key))
    st.session_state[kept] = chosen
    if st.query_params.get(what) != chosen:
        st.query_params[what] = chosen
    return chosen


def choose_run(label: str = "Run") -> str | None:
    """The chosen run; None, and a page that says so, where there is none."""
    names = _runs_and_trials()
    asked = st.query_params.get("run")
    if asked and asked not in names:
        st.warning(plain(f"There is no run '{asked}' in {books().outputs}."), icon=":material/search_off:")
    if not names:
        until_other(_runs_and_trials, no_runs)
        return None
    return choose("run", names, label)


def _runs_and_trials() -> list[str]:
    return [one.name for one in books().table.all()] + books().table.names()[1]


def no_runs() -> None:
    """The page of an empty outputs folder."""
    nothing(
        "directions_run",
        "No run yet",
        f"`{books().outputs}` holds no run. Start one, and it appears here by itself:",
        command("train", "--config", "configs/training_config_light.yaml"),
    )


def nothing(icon: str, title: str, text: str, code: str | None = None) -> None:
    """A page or a part of one that has nothing to show, and what would give it something."""
    with st.container(border=True):
        st.markdown(f"#### :material/{icon}: {title}")
        st.markdown(text)
        if code is not None:
            st.code(code, language="bash", wrap_lines=True)


def badge(facts: RunFacts) -> None:
    """The state as a coloured badge."""
    st.badge(facts.state, icon=f":material/{ICONS[facts.state]}:", color=COLOURS[facts.state])  # type: ignore[arg-type]


def trouble(facts: RunFacts) -> None:
    """What went wrong with a run and how to go on with it; nothing where nothing did."""
    if facts.state not in ("died", "failed", "interrupted"):
        return
    resume = resume_command(run_at(books().outputs, facts.name))
    said = plain(why_dead(facts) if facts.state == "died" else facts.message) or "no reason told"
    text = f"This run {'was interrupted' if facts.state == 'interrupted' else facts.state}: {said}."
    (st.warning if facts.state == "interrupted" else st.error)(text, icon=f":material/{ICONS[facts.state]}:")
    st.caption("Go on with it where it stood:")
    st.code(resume, language="bash", wrap_lines=True)


def size(count: float) -> str:
    """Bytes for people, 10^3 steps."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def lasting(seconds: float | None) -> str:
    """A length of time for people; `-` where it is not known."""
    return "-" if seconds is None else duration(seconds)


def ago(moment: float | None) -> str:
    """`12m03 ago`; `-` where there is none."""
    return "-" if moment is None else f"{duration(max(0.0, time.time() - moment))} ago"


def chart(figure: Any, key: str) -> None:
    """A plotly figure as wide as its place, with the few buttons that are of use."""
    drop = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"]
    st.plotly_chart(
        figure, key=key, config={"displaylogo": False, "displayModeBar": "hover", "modeBarButtonsToRemove": drop}
    )


def minimizes(run: RunDir) -> bool:
    """Whether a smaller monitored metric is better."""
    training = read_own(run.config_yaml).get("training")
    return isinstance(training, dict) and training.get("minimize_metric") is True


def config_text(run: RunDir) -> str:
    """config.yaml as it stands, secrets hidden once more."""
    return to_yaml(redact(read_own(run.config_yaml)))


def as_text(value: Any) -> str:
    """A value of a configuration in a cell."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
