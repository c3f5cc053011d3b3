"""Studies: what the journal, the driver's status and the autopsies say; nothing of it is asked of Optuna or Ray."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.config.study import Study
from cabruca.errors import CabrucaError
from cabruca.monitor.cache import Kept, stamp
from cabruca.monitor.places import study_at
from cabruca.monitor.runs import LIVE, Seen, state_of
from cabruca.study_report.parts import Saved, autopsies, memory_peak, repeated, saved
from cabruca.tracking.status import read_status
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import read
from cabruca.tracking.study_state import StudyState, TrialState
from cabruca.tracking.study_tables import Row, parameter_keys, parameter_value, rows_of, short_names
from cabruca.tracking.study_words import go_on_command


@dataclass(frozen=True)
class StudyLook:
    """A study as it stands.

    Attributes:
        driver: what its driver does; `died` where it says it is at work and is not. message: its last words.
        go_on: the command that goes on with it, None where nothing is left to do or it is at work.
    """

    folder: StudyDir
    study: Study
    state: StudyState
    driver: Seen
    message: str
    go_on: str | None

    @property
    def live(self) -> bool:
        """Whether its driver is at work."""
        return self.driver in LIVE


class StudyShelf:
    """Studies below one folder, read again where their files have changed."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self._studies: Kept[Study] = Kept(100)
        self._states: Kept[StudyState] = Kept(20)

    def open(self, name: str) -> StudyLook:
        """The study of that name.

        Raises:
            RunError: there is none, or its journal is broken. ConfigError: its files cannot be read.
        """
        folder = study_at(self.outputs, name)
        files = (stamp(folder.study_yaml), stamp(folder.base_yaml))
        study = self._studies.get(folder.path, files, folder.load)
        state = self._states.get(folder.path, stamp(folder.results), lambda: read(folder.results))
        status = read_status(folder.status) or {}
        driver, message = state_of(status), str(status.get("message") or "")
        done = driver == "finished" and not state.count("running", "waiting", "interrupted")
        go_on = None if done or driver in LIVE else go_on_command(study, folder, message)
        return StudyLook(folder, study, state, driver, message, go_on)


@dataclass(frozen=True)
class Rung:
    """One rung of a halving scheduler.

    Attributes:
        epoch: at which it decides. reached: trials that came so far; stopped: that ended there by its decision;
            on: that went on; under: that are still below it and at work.
    """

    epoch: int
    reached: int
    stopped: int
    on: int
    under: int


def rungs_of(study: Study, state: StudyState) -> list[Rung]:
    """Occupancy of ASHA's (and Hyperband's) rungs; none where no scheduler has any."""
    scheduler = study.config.scheduler
    if scheduler.type not in ("asha", "hyperband"):
        return []
    out, epoch = [], float(scheduler.grace_period)
    while epoch < study.max_epochs:
        out.append(_rung(int(epoch), list(state.trials.values())))
        epoch *= scheduler.reduction_factor
    return out


def _rung(epoch: int, trials: list[TrialState]) -> Rung:
    reached = [trial for trial in trials if trial.epoch >= epoch]
    stopped = sum(trial.state == "stopped" and trial.rung == epoch for trial in reached)
    under = sum(trial.epoch < epoch and not trial.ended for trial in trials)
    return Rung(epoch, len(reached), stopped, len(reached) - stopped, under)


def leaderboard(look: StudyLook) -> list[dict[str, Any]]:
    """The leaderboard's rows, best first, for a table; a parameter is a number where it is one in all trials."""
    rows = rows_of(look.study, look.state)
    names = short_names(parameter_keys(rows))
    numbers = {key for key in names if all(_is_number(row.params[key]) for row in rows if key in row.params)}
    return [_row(look.study, row, names, numbers) for row in rows]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _row(study: Study, row: Row, names: Mapping[str, str], numbers: Collection[str]) -> dict[str, Any]:
    values = dict(zip(study.metrics, row.best, strict=True))
    params = {short: _cell(row.params.get(key), number=key in numbers) for key, short in names.items()}
    return {
        "#": row.rank,
        "trial": row.trial,
        "state": f"● {row.state}",
        **values,
        "at epoch": row.best_epoch,
        "epoch": row.epoch,
        **params,
        "elapsed": row.elapsed_s,
        "why it ended": row.reason,
    }


def _cell(value: Any, *, number: bool) -> Any:
    return value if value is None or number else parameter_value(value)


@dataclass(frozen=True)
class Autopsy:
    """Of a failed trial: the reason in a line, parameters that differ from the best's, the end of the trace."""

    trial: int
    reason: str
    epoch: int
    memory: str
    differs: Mapping[str, tuple[str, str]]
    trace: tuple[str, ...]


def autopsies_of(look: StudyLook) -> list[Autopsy]:
    """All failed trials, what each left."""
    return [_autopsy(trial, found) for trial, found in autopsies(look.folder, look.state)]


def _autopsy(trial: TrialState, found: Mapping[str, Any]) -> Autopsy:
    differs = found.get("difference_from_best")
    trace = found.get("trace")
    return Autopsy(
        trial=trial.number,
        reason=str(found.get("reason") or trial.reason or "not known"),
        epoch=trial.epoch,
        memory=memory_peak(found),
        differs={
            str(key): (parameter_value(pair[0]), parameter_value(pair[1]))
            for key, pair in (differs.items() if isinstance(differs, dict) else ())
            if isinstance(pair, list) and len(pair) == 2
        },
        trace=tuple(str(line) for line in trace) if isinstance(trace, list) else (),
    )


def spared(look: StudyLook) -> Saved:
    """What stopping early has spared."""
    return saved(look.study, look.state)


def repeats_of(look: StudyLook) -> list[dict[str, Any]]:
    """Trials that were repeated with other seeds; none where that cannot be read."""
    try:
        return repeated(look.folder, look.state, look.study)
    except (CabrucaError, KeyError, TypeError, ValueError):
        return []
