"""The search of a study: Ray's OptunaSearch on a storage that outlives the driver.

The study's journal is the truth; Optuna's storage follows it. What the two disagree on after a kill is put right when
the search begins: a trial that was asked and not written down is written down, one whose end was not told is told, one
that is under way is handed out again, the same trial with the same number and parameters.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from cabruca.config.study import Study
from cabruca.distributed.room import trials_at_once
from cabruca.distributed.study_books import StudyBooks
from cabruca.distributed.study_points import next_of_grid, next_point
from cabruca.distributed.study_sampler import make_sampler
from cabruca.distributed.study_storage import RETRY, catch_up, open_storage, with_space
from cabruca.distributed.trial_ending import Ending
from cabruca.errors import ConfigError, RunError
from cabruca.tracking.study_state import Result

OPTUNA_STATES = {"finished": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


class StudySearch(OptunaSearch):
    """Gives Ray Tune its trials.

    Args:
        books: of the study.
        on_end: called with the number of a trial that has ended.
        closed: true when no more trials are to begin.
    """

    _ot_study: Any

    def __init__(
        self,
        books: StudyBooks,
        on_end: Callable[[int], None],
        closed: Callable[[], bool],
    ) -> None:
        self._books, self._on_end, self._closed = books, on_end, closed
        study = books.study
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        modes = ["max" if direction == "maximize" else "min" for direction in study.directions]
        many = len(modes) > 1
        storage = open_storage(books.study_dir.optuna_db)
        super().__init__(
            space=study.space.suggest,
            metric=list(study.metrics) if many else study.metrics[0],
            mode=modes if many else modes[0],
            sampler=_sampler(study),
            study_name=with_space(storage, study),
            storage=storage,
        )
        self._live: dict[str, int] = {}
        self._told: dict[int, int] = {}
        self._waiting: deque[int] = deque()
        self._retries: deque[int] = deque()
        catch_up(self._ot_study, study, books.state)
        self._reconcile()

    def __reduce__(self) -> Any:
        return Searcher, ()  # Tune's own snapshot holds one; nothing is resumed from it

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study's folder holds all."""

    def retry(self, numbers: Iterable[int]) -> None:
        """Ask these failed trials again, as new ones with the same parameters."""
        again = {trial.retry_of for trial in self._books.state.trials.values()}
        self._retries.extend(number for number in numbers if number not in again | self._asked_again())

    def _asked_again(self) -> set[Any]:
        """Failed trials whose repetition is in Optuna's file, and not asked yet."""
        return {frozen.user_attrs.get(RETRY) for frozen in self._of_state(TrialState.WAITING)}

    # what Ray Tune calls

    def suggest(self, trial_id: str) -> Any:
        if self._closed():
            return Searcher.FINISHED
        if len(self._live) >= trials_at_once(self._books.study, self._books.study_dir):
            return None
        while (number := self._next()) is not None:
            if self._hand_out(number):
                self._live[trial_id] = number
                return {"trial": number}
        return Searcher.FINISHED

    def _hand_out(self, number: int) -> bool:
        """False where the parameters together break a rule of the schema: the trial has failed."""
        try:
            self._books.hand_out(number)
        except ConfigError as error:
            self._end(number, Ending("failed", 0, f"ConfigError: {error}"))
            return False
        return True

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Optuna is told of an epoch's value when the journal holds it."""
        number = self._live.get(trial_id)
        if number is not None and "epoch" in result and len(self._books.study.metrics) == 1:
            self._tell_newest(number)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        number = self._live.pop(trial_id, None)
        if number is None:
            return
        told = (result or {}).get("end")
        self._end(number, self._of_dead(number) if told is None else Ending.from_json(told))

    def _end(self, number: int, ending: Ending) -> None:
        """The journal first, then Optuna, then who keeps or drops checkpoints."""
        self._books.ended(number, ending)
        self._tell_end(number)
        self._on_end(number)

    def _of_dead(self, number: int) -> Ending:
        epoch, times = self._books.state.trials[number].epoch, self._books.deaths[number]
        if self._closed():
            return Ending("interrupted", epoch, "its process ended with the study's")
        return Ending(
            "failed",
            epoch,
            f"its process died {times} times without a word (killed, or out of the machine's memory); last after epoch "
            f"{epoch}; max_failures {self._books.study.config.max_failures} allows no more",
        )

    # the trials

    def _next(self) -> int | None:
        """The number of the next trial: one under way, a repetition, a new one; None: all are asked."""
        if self._waiting:
            return self._waiting.popleft()
        if self._of_state(TrialState.WAITING):  # a kill fell between enqueue_trial and ask
            return self._ask(None)
        if self._retries:
            failed = self._retries.popleft()
            return self._ask(self._frozen(failed).params, retry_of=failed)
        study, state = self._books.study, self._books.state
        own = sum(trial.retry_of is None for trial in state.trials.values())
        if own >= study.config.num_trials:
            return None
        tried = [trial.params for trial in state.trials.values() if trial.retry_of is None]
        point = next_point(study, tried)
        if point is None and study.config.sampler.type == "grid":
            point = next_of_grid(study, tried)
            if point is None:
                return None
        return self._ask(None if point is None else study.space.encode(point))

    def _ask(self, fixed: dict[str, Any] | None, retry_of: int | None = None) -> int:
        if fixed is not None:
            self._ot_study.enqueue_trial(fixed, user_attrs={} if retry_of is None else {RETRY: retry_of})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._write_down(self._ot_study.ask())

    def _write_down(self, trial: Trial) -> int:
        """Draw what is not drawn yet, and make the trial one of the journal's.

        Raises:
            RunError: the journal has a trial of that number.
        """
        if trial.number in self._books.state.trials:
            path = self._books.study_dir.optuna_db
            raise RunError(
                f"{path} gives out trial {trial.number}, which {self._books.study_dir.results} holds already; remove "
                f"{path.name}, which is made anew from the journal, and resume"
            )
        params = self._books.study.space.suggest(trial)
        self._ot_study._storage.keep()
        retry_of = trial.user_attrs.get(RETRY)
        more = {} if retry_of is None else {"retry_of": retry_of}
        self._books.write("asked", trial=trial.number, params=params, **more)
        return int(trial.number)

    # what a kill left

    def _reconcile(self) -> None:
        for frozen in self._of_state(TrialState.RUNNING):
            trial = self._books.state.trials.get(frozen.number)
            if trial is None:
                self._waiting.append(self._write_down(Trial(self._ot_study, frozen._trial_id)))
                continue
            self._tell_epochs(frozen.number)
            if trial.ended:
                self._tell_end(frozen.number)
            else:
                self._waiting.append(frozen.number)

    def _of_state(self, state: TrialState) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self._ot_study.get_trials(deepcopy=False, states=(state,))
        return sorted(found, key=lambda frozen: frozen.number)

    def _frozen(self, number: int) -> FrozenTrial:
        found: FrozenTrial = self._ot_study.get_trials(deepcopy=False)[number]
        return found

    def _tell_epochs(self, number: int) -> None:
        """Values of the first metric that Optuna has not heard of."""
        if len(self._books.study.metrics) > 1:
            return
        known = self._ot_study._storage.get_trial(self._id_of(number)).intermediate_values
        for result in self._books.state.trials[number].results:
            if result.epoch not in known:
                self._tell_value(number, result)

    def _tell_newest(self, number: int) -> None:
        results = self._books.state.trials[number].results
        if results and self._told.get(number, 0) < results[-1].epoch:
            self._tell_value(number, results[-1])

    def _tell_value(self, number: int, result: Result) -> None:
        self._told[number] = result.epoch
        value = result.metrics.get(self._books.study.metrics[0])
        if value is not None:
            self._ot_study._storage.set_trial_intermediate_value(self._id_of(number), result.epoch, value)

    def _id_of(self, number: int) -> int:
        storage, study_id = self._ot_study._storage, self._ot_study._study_id
        return int(storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def _tell_end(self, number: int) -> None:
        trial = self._books.state.trials[number]
        state = OPTUNA_STATES.get(trial.state)
        if state is None:
            return  # interrupted: Optuna takes it for running, and so it is handed out again
        values = list(trial.values) if state == TrialState.COMPLETE and trial.values else None
        self._ot_study.tell(number, values, state=state)


def _sampler(study: Study) -> Any:
    settings = study.config.sampler
    return make_sampler(settings.type, settings.seed, study.space, many=study.config.max_concurrent_trials > 1)
