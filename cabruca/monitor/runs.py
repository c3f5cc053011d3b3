"""The table of runs: what each run's small files say, read again only where one has changed.

metrics.jsonl is not read for it: epochs and the best value stand in training_history.json, one value an epoch.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cabruca.commands import command
from cabruca.config.load import read_own
from cabruca.errors import RunError
from cabruca.monitor.cache import Kept, stamp
from cabruca.monitor.notes import Notes, notes_file, read_notes
from cabruca.monitor.places import names_of, run_at
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.runs import best_place
from cabruca.tracking.status import DEAD_AFTER_S, is_alive, read_status
from cabruca.tracking.study_dir import StudyDir, trial_number

Seen = Literal["starting", "running", "finished", "stopped", "interrupted", "failed", "died", "unknown"]

LIVE: tuple[Seen, ...] = ("starting", "running")


@dataclass(frozen=True)
class RunFacts:
    """One row of the table.

    Attributes:
        name: path below the outputs folder. state: that of status.json, but `died` of a run that says it is at work and
            is not. message: status.json's.
        monitor: the monitored metric; best: its best value and best_epoch the epoch of it, None where there is none.
        epoch: completed; epochs: asked for. elapsed_s: from the start to the last heartbeat, pauses between two starts
            among it. heartbeat: seconds since 1970. bytes: of all files in the folder.
    """

    name: str
    state: Seen
    message: str = ""
    monitor: str = ""
    best: float | None = None
    best_epoch: int | None = None
    epoch: int = 0
    epochs: int | None = None
    device: str = ""
    elapsed_s: float | None = None
    heartbeat: float | None = None
    bytes: int = 0
    notes: Notes = field(default_factory=Notes)

    @property
    def live(self) -> bool:
        """Whether it is at work."""
        return self.state in LIVE


class RunTable:
    """Facts of the runs below one folder, kept between looks."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self._json: Kept[dict[str, Any]] = Kept()
        self._config: Kept[dict[str, Any]] = Kept()
        self._notes: Kept[Notes] = Kept()
        self._best: Kept[tuple[float | None, int | None]] = Kept()
        self._sizes: Kept[int] = Kept()
        self._names: Kept[tuple[list[str], list[str], list[str]]] = Kept()

    def names(self) -> tuple[list[str], list[str], list[str]]:
        """As `names_of`, at most twice a second anew."""
        return self._names.get("names", int(2 * time.time()), lambda: names_of(self.outputs))

    def all(self, *, trials: bool = False) -> list[RunFacts]:
        """Every run, those that were at work last first; with those of studies on request."""
        runs, of_studies, _ = self.names()
        found: list[RunFacts] = []
        for name in [*runs, *(of_studies if trials else [])]:
            with suppress(RunError):  # removed since the names were listed
                found.append(self.look_at(name))
        return sorted(found, key=lambda one: (not one.live, -(one.heartbeat or 0.0), one.name))

    def look_at(self, name: str) -> RunFacts:
        """One run; whatever of its files is missing or broken is left open.

        Raises:
            RunError: there is no such run.
        """
        run = run_at(self.outputs, name)
        status = read_status(run.status) or {}
        config = self._config.of_file(run.config_yaml, read_own)
        environment = self._json.of_file(run.environment, _read_json)
        training = config.get("training")
        training = training if isinstance(training, dict) else {}
        monitor = str(training.get("monitor_metric") or "")
        minimize = training.get("minimize_metric") is True
        history = (stamp(run.history), monitor, minimize)
        best, epoch = self._best.get(run.path, history, lambda: _best(run.history, monitor, minimize=minimize))
        heartbeat = _number(status.get("heartbeat"))
        started = _number(environment.get("time"))
        return RunFacts(
            name=name,
            state=state_of(status),
            message=str(status.get("message") or ""),
            monitor=monitor,
            best=best,
            best_epoch=epoch,
            epoch=int(_number(status.get("epoch")) or 0),
            epochs=epochs_of(training),
            device=str(environment.get("gpu") or environment.get("device") or config.get("device") or ""),
            elapsed_s=heartbeat - started if heartbeat and started and heartbeat >= started else None,
            heartbeat=heartbeat,
            bytes=self._sizes.get(run.path, _folder_stamp(run), lambda: size_of(run.path)),
            notes=self._notes.of_file(notes_file(run), read_notes),
        )


def state_of(status: Mapping[str, Any], *, now: float | None = None) -> Seen:
    """The state that a status.json comes to: `died` where it says starting or running and nobody is at work."""
    said = status.get("state")
    if said in ("starting", "running"):
        return said if is_alive(dict(status), now=now) else "died"
    return said if said in ("finished", "stopped", "failed", "interrupted") else "unknown"


def why_dead(facts: RunFacts, *, now: float | None = None) -> str:
    """A line for people of a run that died."""
    if facts.heartbeat is None:
        return "its status has no heartbeat"
    age = (time.time() if now is None else now) - facts.heartbeat
    if age > DEAD_AFTER_S:
        return f"its last heartbeat is {age:.0f} s old, and a living run gives one every few seconds"
    return f"its process is gone; the last heartbeat is {age:.0f} s old"


def epochs_of(training: Mapping[str, Any]) -> int | None:
    """Epochs asked for: those of the stages where there are any."""
    stages = training.get("stages")
    if isinstance(stages, list) and stages:
        counts = [stage.get("epochs") for stage in stages if isinstance(stage, dict)]
        return sum(count for count in counts if isinstance(count, int))
    asked = training.get("num_epochs")
    return asked if isinstance(asked, int) else None


def resume_command(run: RunDir) -> str:
    """What goes on with a run; with its study where it is a trial of one."""
    study = StudyDir(run.path.parent.parent)
    if trial_number(run.name) is not None and study.holds_study:
        return command("tune", "resume", study.path)
    words: list[str | Path] = ["--experiment-name", run.name, "--output-dir", run.path.parent]
    return command("train", "--config", run.config_yaml, "--resume", "auto", *words)


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder and below, each file once however many names it has; links are not followed."""
    return sum(dict(_files(folder)).values())


def _files(folder: Path | str) -> Iterator[tuple[tuple[int, int], int]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    yield (found.st_dev, found.st_ino), found.st_size
    except OSError:  # it was removed meanwhile, or is not ours to read
        return


def _folder_stamp(run: RunDir) -> object:
    """Changes when a file comes or goes, an epoch ends, or a row is written."""
    parts = (run.path, run.checkpoints, run.predictions, run.plots, run.tensorboard, run.metrics)
    return tuple(stamp(path) if path != run.path else None for path in parts)


def _best(history: Path, monitor: str, *, minimize: bool) -> tuple[float | None, int | None]:
    found = _read_json(history)
    values, epochs = found.get(monitor), found.get("epoch")
    if not isinstance(values, list) or not isinstance(epochs, list):
        return None, None
    place = best_place(values, minimize=minimize)
    if place is None:
        return None, None
    epoch = epochs[place] if place < len(epochs) else None
    return float(values[place]), epoch if isinstance(epoch, int) else None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def matching(runs: Sequence[RunFacts], words: str, states: Sequence[str] = ()) -> list[RunFacts]:
    """Those in which every word is found: in name, state, device, tags or note, in whatever case."""
    asked = words.lower().split()

    def text(one: RunFacts) -> str:
        return " ".join([one.name, one.state, one.device, one.monitor, *one.notes.tags, one.notes.note]).lower()

    return [one for one in runs if (not states or one.state in states) and all(word in text(one) for word in asked)]
