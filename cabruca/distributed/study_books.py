"""The driver's books of a study: every event goes into the journal first, then to whoever watches."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from cabruca.config.schema import Config
from cabruca.config.study import Study, trial_config
from cabruca.distributed.autopsy import NAME, complete, write_autopsy_of_dead
from cabruca.distributed.population import Exchange, Population
from cabruca.distributed.study_desk import Order, TakeOver
from cabruca.distributed.study_mirror import StudyMirror, drop_there, placed
from cabruca.distributed.trial_ending import Ending
from cabruca.errors import RunError
from cabruca.tracking.status import StatusFile
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal, events
from cabruca.tracking.study_place import StudyPlace
from cabruca.tracking.study_state import Result, StudyState, TrialState

_log = logging.getLogger("cabruca.distributed")


class Watcher(Protocol):
    """Who looks on in the driver: the leaderboard on the terminal, trackers, gauges."""

    def on_event(self, event: Mapping[str, Any], state: StudyState) -> None: ...
    def on_end(self, result: Any) -> None: ...


class Places(Protocol):
    """What a trial's trackers are told; `StudyTrackers` is one."""

    def place(self, number: int, params: Mapping[str, Any]) -> StudyPlace: ...


class StudyBooks:
    """Arguments: the study and its folder, its open journal, who watches, the handle of the study's desk, its copy in a
    shared place or None."""

    def __init__(
        self,
        study: Study,
        study_dir: StudyDir,
        journal: Journal,
        watchers: Sequence[Watcher],
        *,
        desk: Any,
        places: Places,
        mirror: StudyMirror | None = None,
    ) -> None:
        self.study, self.study_dir, self.journal = study, study_dir, journal
        self.desk, self._mirror = desk, mirror
        self._watchers, self._places = list(watchers), places
        self._broken: set[int] = set()
        self.deaths: Counter[int] = Counter()
        self.population = Population(study) if study.config.scheduler.type == "pbt" else None

    @property
    def state(self) -> StudyState:
        return self.journal.state

    def write(self, event: str, **fields: Any) -> None:
        """Append an event and show it.

        Raises:
            RunError: the disk refuses: the study cannot go on.
        """
        written = self.journal.append({"event": event, **fields})
        for index, watcher in enumerate(self._watchers):
            try:
                watcher.on_event(written, self.state)
            except Exception as error:
                if index not in self._broken:
                    self._broken.add(index)
                    _log.warning("%s failed (%s); the study goes on", type(watcher).__name__, error)

    def replay(self) -> Iterator[tuple[int, Result]]:
        """Trial and result of every report in the journal, in the order in which they came."""
        for event in events(self.study_dir.results):
            if event["event"] == "result":
                yield event["trial"], Result(event["epoch"], event["step"], event["metrics"])

    def died(self, number: int) -> None:
        """A trial's process died; Tune starts it again, or gives it up."""
        self.deaths[number] += 1
        self.write("note", text=f"trial {number}: its process died")

    def hand_out(self, number: int) -> None:
        """A trial is given to Ray Tune: its process finds its order at the desk."""
        trial = self.state.trials[number]
        asked = trial.params
        config = self._config(number, self.population.params_of(number, asked) if self.population else asked)
        place = self._places.place(number, asked)
        order = Order(number, config, place, known_epoch(trial), trial.elapsed_s, stop=_stop_of(trial))
        self.desk.hand_out.remote(order)  # the trial waits for it, the driver does not
        newest = None if self.population is None else self.population.newest(number)
        if newest is not None and newest.epoch == order.known:
            self._tell_exchange(number, newest)

    def _config(self, number: int, params: Mapping[str, Any]) -> Config:
        trials = self.study_dir.trials
        config = trial_config(self.study, params, number=number, folder=trials.absolute())
        return placed(config, self.study_dir, trials)

    def exchanged(self, number: int, exchange: Exchange) -> None:
        """A trial takes over another's weights: it is told before it can ask."""
        params = ", ".join(f"{key} {value}" for key, value in exchange.params.items())
        text = f"trial {number} takes over the weights of trial {exchange.donor} after epoch {exchange.epoch}: {params}"
        self.write("note", text=text)
        self._tell_exchange(number, exchange)

    def _tell_exchange(self, number: int, exchange: Exchange) -> None:
        import ray

        donor = str(self.study_dir.trial_dir(exchange.donor).path.absolute())
        take_over = TakeOver(exchange.epoch, donor, self._config(number, exchange.params))
        ray.get(self.desk.exchange.remote(number, take_over))

    def result(self, number: int, flat: Mapping[str, Any]) -> bool:
        """Write down what a trial reported; False where that is known already."""
        epoch = int(flat["epoch"])
        if epoch <= known_epoch(self.state.trials[number]):
            return False
        metrics = {name[2:]: value for name, value in flat.items() if name.startswith("m/")}
        self.write(
            "result",
            trial=number,
            epoch=epoch,
            step=int(flat["step"]),
            metrics=metrics,
            elapsed_s=flat["elapsed_s"],
            memory_mb=flat["memory_mb"] or None,
        )
        self.desk.note.remote(number, epoch, flat["elapsed_s"])
        return True

    def decided(self, number: int, epoch: int, rung: int, by: str, *, tell: bool = True) -> None:
        """The scheduler stops a trial: it is told before it can ask; without `tell`, when it is handed out."""
        import ray

        self.write("decided", trial=number, epoch=epoch, decision="stop", rung=rung, by=by)
        if not tell:
            return
        ray.get(self.desk.note.remote(number, epoch, self.state.trials[number].elapsed_s, stop_words(epoch, rung, by)))

    def ended(self, number: int, ending: Ending) -> TrialState:
        """An attempt at a trial has ended."""
        trial = self.state.trials[number]
        self._gather(number)
        ending = self._checked(trial, ending)
        if ending.state == "failed":
            self._autopsy(trial, ending)
        best = trial.best(self.study)
        values = list(best.values) if best is not None and ending.state != "failed" else None
        epoch = max(ending.epoch, trial.epoch)
        self.write("ended", trial=number, state=ending.state, epoch=epoch, values=values, reason=ending.reason)
        self.desk.forget.remote(number)
        return trial

    def _gather(self, number: int) -> None:
        if self._mirror is None:
            return
        try:
            self._mirror.gather(self._config(number, {}))
        except RunError as error:
            _log.warning("trial %d is not here to be looked at (%s)", number, error)

    def drop_there(self, number: int) -> None:
        """Remove a trial's weights from the study's copy in a shared place."""
        if self._mirror is not None:
            drop_there(self._config(number, {}))

    def _checked(self, trial: TrialState, ending: Ending) -> Ending:
        """A trial that ends well without a number has failed."""
        if ending.state not in ("finished", "stopped") or trial.best(self.study) is not None:
            return ending
        names = " and ".join(self.study.metrics)
        said = f"{names} was never measured in {ending.epoch} epochs; see validation.frequency and max_epochs"
        return Ending("failed", ending.epoch, said)

    def _autopsy(self, trial: TrialState, ending: Ending) -> None:
        run_dir = self.study_dir.trial_dir(trial.number)
        with contextlib.suppress(OSError):
            if not (run_dir.path / NAME).is_file():
                write_autopsy_of_dead(run_dir, ending.reason, ending.epoch)
                StatusFile(run_dir.status).set("failed", epoch=ending.epoch, message=ending.reason)
            best = self.state.best(self.study)
            complete(run_dir, trial.params, best.params if best is not None else None)


def known_epoch(trial: TrialState) -> int:
    """The last epoch that a trial has reported."""
    return trial.results[-1].epoch if trial.results else 0


def _stop_of(trial: TrialState) -> str | None:
    """Why a trial that is under way is to stop: decided before a kill, and not done."""
    if trial.rung is None or trial.ended:
        return None
    return stop_words(known_epoch(trial), trial.rung, str(trial.by))


def stop_words(epoch: int, rung: int, by: str) -> str:
    """Why the study stops a trial, for its status and log."""
    return f"stopped by {by} at rung {rung} after epoch {epoch}"
