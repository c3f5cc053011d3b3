"""What people see while a study runs: a live leaderboard on a terminal, a line an event in a pipe, or JSON.

Three watchers, of which `study_progress_of` chooses one: `JsonStudy` (--json), `LiveStudy` (a terminal), `PlainStudy`
(a pipe, a log file, --quiet). They are told of every event by the thread that drives the study, so they cost it little:
the table is made by the thread that draws it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cabruca.config.study import Study
from cabruca.tracking.files import to_json
from cabruca.tracking.secrets import hide
from cabruca.tracking.short import duration, short_number
from cabruca.tracking.study_state import StudyState, TrialState
from cabruca.tracking.study_tables import (
    epochs,
    heading_text,
    leaderboard_table,
    leaderboard_text,
    parameter_value,
)

_log = logging.getLogger("cabruca.study")

REFRESH_PER_SECOND = 2

LINES_AROUND = 7
"""Lines of a terminal that are not rows of the table: heading, head, caption, the prompt."""


class StudyWatcher(Protocol):
    """Told of every event after it is in the journal; `state` already knows of it."""

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None: ...
    def on_end(self, result: Any) -> None: ...
    def close(self) -> None: ...


def study_progress_of(
    study: Study, *, quiet: bool = False, json: bool = False, stream: TextIO | None = None
) -> StudyWatcher:
    """The watcher for this terminal and these flags. `stream`: default: stdout."""
    stream = stream or sys.stdout
    if json:
        return JsonStudy(stream)
    console = Console(file=stream, highlight=False)  # rich honours NO_COLOR and TERM=dumb itself
    if not quiet and console.is_terminal and not console.is_dumb_terminal:
        return LiveStudy(study, console)
    return PlainStudy(study, None if quiet else stream)


class PlainStudy:
    """One line an event, into the log always, onto `stream` where there is one; the leaderboard at the end."""

    def __init__(self, study: Study, stream: TextIO | None) -> None:
        self._study, self._stream = study, stream
        self._began = time.monotonic()
        self._state: StudyState | None = None

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None:
        self._state = state
        line = line_of(event, self._study, state)
        if line is not None:
            self._tell(f"{duration(time.monotonic() - self._began):>6}  {line}")

    def on_end(self, result: Any) -> None:
        if self._state is None:
            return
        self._tell(heading_text(self._study, self._state, time.monotonic() - self._began))
        if self._stream is not None:
            print(leaderboard_text(self._study, self._state), file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal in order, however the study ended."""

    def _tell(self, line: str) -> None:
        line = hide(line)
        _log.info("%s", line)
        if self._stream is not None:
            print(line, file=self._stream, flush=True)


class LiveStudy(PlainStudy):
    """The leaderboard, drawn again as it changes; failed trials and notes stay as lines above it."""

    def __init__(self, study: Study, console: Console) -> None:
        super().__init__(study, None)
        self._console = console
        self._drawn: Table | None = None
        self._title = ""
        self._changed = False
        self._live = Live(
            console=console, get_renderable=self._draw, refresh_per_second=REFRESH_PER_SECOND, transient=True
        )

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None:
        super().on_event(event, state)
        self._changed = True
        if not self._live.is_started:
            self._live.start()
        failed = event.get("event") == "ended" and event.get("state") == "failed"
        if failed or event.get("event") == "note":
            line = line_of(event, self._study, state) or ""
            self._console.print(hide(line), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()

    def on_end(self, result: Any) -> None:
        self._live.stop()
        super().on_end(result)
        if self._state is not None:
            self._console.print(self._heading(heading_text(self._study, self._state)))
            self._console.print(leaderboard_table(self._study, self._state, width=self._width))

    @property
    def _width(self) -> int:
        return min(self._console.width, 120)

    def _draw(self) -> Group:
        """Called by the drawing thread. The driver may change the state meanwhile: then the last table stays."""
        if self._changed and self._state is not None:
            self._changed = False
            most = max(self._console.height - LINES_AROUND, 3)
            try:
                self._title = heading_text(self._study, self._state)
                self._drawn = leaderboard_table(self._study, self._state, width=self._width, most=most)
            except Exception as error:  # such as a dictionary that changed its size meanwhile
                self._changed = True
                _log.debug("the leaderboard is drawn again: %s", error)
        return Group(self._heading(self._title), *([] if self._drawn is None else [self._drawn]))

    def _heading(self, title: str) -> Text:
        spent = f"; {duration(time.monotonic() - self._began)}"
        budget = self._study.config.time_budget
        return Text(f"{title}{spent}{f' of {budget}' if budget else ''}", style="bold", no_wrap=True)


class JsonStudy:
    """Every event as it is in the journal, one object a line; then `{"event": "end", ...}`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None:
        self._put(event)

    def on_end(self, result: Any) -> None:
        names = ("state", "best", "message", "exit_code")
        self._put({"event": "end", **{name: getattr(result, name) for name in names}})

    def close(self) -> None:
        """Nothing is open."""

    def _put(self, row: Mapping[str, Any]) -> None:
        print(hide(to_json(row)), file=self._stream, flush=True)


def line_of(event: Mapping[str, Any], study: Study, state: StudyState) -> str | None:
    """An event as a line for people; None for one that says nothing new."""
    kind, number = event.get("event"), event.get("trial")
    if kind == "note":
        return str(event.get("text", ""))
    trial = state.trials.get(number) if isinstance(number, int) else None
    said = None if trial is None else _SAID.get(str(kind), _nothing)(event, study, trial)
    return None if said is None else f"trial {number:<4} {said}"


def _nothing(event: Mapping[str, Any], study: Study, trial: TrialState) -> str | None:
    return None


def _asked(event: Mapping[str, Any], study: Study, trial: TrialState) -> str:
    again = "" if trial.retry_of is None else f", trial {trial.retry_of} again"
    return f"asked{again}   " + " ".join(f"{key}={parameter_value(value)}" for key, value in trial.params.items())


def _started(event: Mapping[str, Any], study: Study, trial: TrialState) -> str | None:
    return f"goes on after epoch {trial.epoch}" if trial.epoch else None


def _result(event: Mapping[str, Any], study: Study, trial: TrialState) -> str:
    metrics, best = event.get("metrics", {}), trial.best(study)
    values = [f"{name} {short_number(metrics.get(name))}" for name in study.metrics]
    shown = f"best {short_number(best.value)}@{best.epoch}" if best and len(study.metrics) == 1 else ""
    return "   ".join(part for part in (f"epoch {event.get('epoch')}", *values, shown) if part)


def _decided(event: Mapping[str, Any], study: Study, trial: TrialState) -> str:
    rung = event.get("rung")
    at = f" at rung {rung}" if rung is not None else ""
    return f"{event.get('by', 'the scheduler')} stops it{at}: it is not among the best there"


def _ended(event: Mapping[str, Any], study: Study, trial: TrialState) -> str:
    best = trial.best(study)
    values = [
        f"{name} {short_number(value)}" for name, value in zip(study.metrics, best.values if best else (), strict=False)
    ]
    shown = f", best {', '.join(values)} at epoch {best.epoch}" if best else ""
    told = trial.state == "finished" or trial.rung is not None  # the scheduler's decision has a line of its own
    why = "" if told or not trial.reason else f": {trial.reason}"
    return f"{trial.state} after {epochs(trial.epoch)}{shown}{why}"


_SAID = {"asked": _asked, "started": _started, "result": _result, "decided": _decided, "ended": _ended}
