"""Ray Tune on a study: a fresh Tuner, fed from the study's folder, run until no trial is left or somebody stops it."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from cabruca.commands import command
from cabruca.config.study import Study
from cabruca.distributed.cooperative_asha import Cooperative
from cabruca.distributed.search import StudySearch
from cabruca.distributed.study_books import StudyBooks
from cabruca.distributed.trial import TrialJob, run_trial
from cabruca.errors import CabrucaError, RunError
from cabruca.tracking.study_words import TIME_IS_UP

_log = logging.getLogger("cabruca.distributed")

LOOK_S = 0.2
"""Seconds between the driver's looks at the clock."""

SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial's last words hold no metric
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nothing is resumed from Tune's own snapshots
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
"""Environment variables of Ray Tune, set unless the user has set them."""


@dataclass
class Stop:
    """Why a study ends before its last trial: `reason` for people, `number` of the signal or None."""

    reason: str | None = None
    number: int | None = None
    faults: list[BaseException] = field(default_factory=list)


def run_tuner(
    books: StudyBooks,
    job: TrialJob,
    stop: Stop,
    *,
    retry_failed: bool,
    ends_at: float | None,
    on_end: Callable[[int], None],
) -> None:
    """Run the study's trials that are left.

    Args:
        books: open. job: what every trial is given. stop: filled where the study ends early.
        ends_at: `time.monotonic()` after which trials save and end. on_end: called with each trial that ended.

    Raises:
        CabrucaError: the study's own books cannot be written. RunError: Ray Tune broke.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("ray.tune", "ray.tune.tune", "ray.air", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    scheduler = Cooperative(books)
    search = StudySearch(books, on_end, lambda: stop.reason is not None)
    if retry_failed:
        search.retry(n for n, trial in books.state.trials.items() if trial.state == "failed")
    scratch = books.study_dir.scratch
    shutil.rmtree(scratch, ignore_errors=True)  # of a driver that was killed
    look_at_the_clock(stop, ends_at)
    tuner = _tuner(books, job, scheduler, search)
    thread = threading.Thread(target=_fit, args=(tuner, stop), name="cabruca-study", daemon=True)
    try:
        with stop_on_signals(stop):
            thread.start()  # not the main thread: there Ray Tune would take Ctrl-C for itself
            told = False
            while thread.is_alive():
                thread.join(LOOK_S)
                look_at_the_clock(stop, ends_at)
                if stop.reason is not None and not told:
                    told = True
                    books.desk.ask_leave.remote(stop.reason)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if stop.faults:
        raise _error_of(stop.faults[0], books) from stop.faults[0]


def look_at_the_clock(stop: Stop, ends_at: float | None) -> None:
    """Stop where the time budget is used up."""
    if ends_at is not None and time.monotonic() > ends_at and stop.reason is None:
        stop.reason = TIME_IS_UP


def _tuner(books: StudyBooks, job: TrialJob, scheduler: Cooperative, search: StudySearch) -> Any:
    from ray import tune

    own: Any = tune  # its stubs are of the version before
    study = books.study
    trainable = own.with_resources(own.with_parameters(run_trial, job=job), resources_of(study))
    return own.Tuner(
        trainable,
        param_space={},
        tune_config=own.TuneConfig(
            search_alg=search,
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=own.RunConfig(
            name=f"tune_{time.time_ns()}",
            storage_path=str(books.study_dir.scratch.absolute()),
            failure_config=own.FailureConfig(max_failures=study.config.max_failures),
            callbacks=[_started(books)],
            verbose=0,
        ),
    )


def _trial_name(trial: Any) -> str:
    return f"trial_{int(trial.config['trial']):04d}_{trial.trial_id}"


def resources_of(study: Study) -> dict[str, float]:
    """What a trial's own process takes of the cluster; with workers, next to nothing: they take it."""
    if study.config.workers_per_trial > 1:
        return {"memory": float(1 << 20)}
    own = study.config.resources_per_trial
    return {"cpu": own.cpu, **({"gpu": own.gpu} if own.gpu else {})}


def cores_of(study: Study) -> int:
    """Whole cores of a trial's process, or of each worker."""
    return max(1, int(study.config.resources_per_trial.cpu))


def _started(books: StudyBooks) -> Any:
    from ray.tune import Callback

    class Started(Callback):
        """Writes down that a process has taken a trial up."""

        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            books.write("started", trial=int(trial.config["trial"]))

        def __reduce__(self) -> Any:
            return Callback, ()

    return Started()


def _fit(tuner: Any, stop: Stop) -> None:
    try:
        tuner.fit()
    except BaseException as error:
        stop.faults.append(error)


def _error_of(error: BaseException, books: StudyBooks) -> Exception:
    if isinstance(error, CabrucaError):
        return error
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = said[-1] if said else type(error).__name__
    words = command("tune", "resume", books.study_dir.path)
    return RunError(f"Ray Tune ended with an error ({last}); go on with: {words}")


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask every trial to save and end; a second one ends the driver at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: Any) -> None:
        if stop.number is not None:
            raise KeyboardInterrupt
        stop.number = number
        stop.reason = signal.Signals(number).name

    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in old:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
