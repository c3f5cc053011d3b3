"""What `study_cost.py` measures: a study of trials that train nothing, the same under raw Ray Tune, and a clock."""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
LIGHT = ROOT / "configs" / "training_config_light.yaml"
METRIC = "val/mAP_50"
ASHA = {"grace_period": 1, "reduction_factor": 3}
EPOCHS = 9
AT_ONCE = "CABRUCA_BENCH_AT_ONCE"
"""Environment variable for Ray's processes: how many trials run at a time."""

PATIENCE_S = 60.0
_MET: set[Path] = set()
LEAN = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1000000000"}


def value_of(params: dict[str, Any]) -> float:
    """What a trial reports; any function of its parameters."""
    return 1.0 - abs(float(params["optimizer.lr"]) - 1e-3)


def meet(concurrent: int) -> None:
    """Wait in a process's first trial until all processes of the study are there.

    A trial that is over before the next process has started gives its process to the trial that waits for that one,
    and Ray Tune takes the starting process away, again and again: by luck, all trials of a study then run one by one.
    """
    from ray import tune

    folder = Path(tune.get_context().get_trial_dir()).parent
    if folder in _MET:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"here_{os.getpid()}").touch()
    end = time.monotonic() + PATIENCE_S
    while len(list(folder.glob("here_*"))) < concurrent and time.monotonic() < end:
        time.sleep(0.05)
    _MET.add(folder)


def noop_trial(config: dict[str, Any], job: Any) -> dict[str, Any]:
    """Stands for `cabruca.distributed.trial.run_trial`: all its talk with the study, and nothing to learn."""
    from cabruca.distributed.trial_ending import Ending, last_words
    from cabruca.distributed.trial_lines import TuneLine, order_at
    from cabruca.distributed.trial_reporter import result_of

    meet(int(os.environ[AT_ONCE]))
    order = order_at(job.desk, config["trial"])
    line = TuneLine(job.desk, order.number)
    line.tell(result_of(1, 1, {METRIC: value_of(order.place.params)}, 0.0))
    stop = line.stop_asked()
    return last_words(order.number, Ending("finished" if stop is None else "stopped", 1, stop or ""))


def raw_trial(config: dict[str, Any]) -> None:
    """The same under raw Ray Tune."""
    from ray import tune

    import cabruca.distributed.trial  # noqa: F401 - what a real trial imports

    meet(int(os.environ[AT_ONCE]))
    tune.report({METRIC: value_of(config), "epoch": 1})


def study_in(folder: Path, trials: int, arguments: argparse.Namespace, **keys: Any) -> Any:
    """A study of the light preset in `folder`."""
    from cabruca.config.study import load_study

    raw = {
        "name": "cost",
        "config": str(LIGHT),
        "metric": METRIC,
        "mode": "max",
        "num_trials": trials,
        "max_epochs": EPOCHS,
        "max_concurrent_trials": arguments.concurrent,
        "search_space": {"optimizer.lr": {"loguniform": [1e-5, 1e-1]}, "optimizer.weight_decay": {"uniform": [0, 0.1]}},
        "sampler": {"type": arguments.sampler, "seed": 1},
        "scheduler": {"type": "asha", **ASHA},
        "set": {"output_dir": str(folder), "tracking.tensorboard": False, "model.pretrained": "none", "device": "cpu"},
        **keys,
    }
    (folder / "study.yaml").write_text(json.dumps(raw))
    return load_study(folder / "study.yaml")


def run_ours(trials: int, arguments: argparse.Namespace) -> float:
    """Seconds of a study of no-op trials, from the call to its end."""
    from cabruca.distributed import study_run
    from cabruca.distributed.study import run_study
    from cabruca.tracking.study_dir import StudyDir
    from cabruca.tracking.study_progress import study_progress_of

    with tempfile.TemporaryDirectory() as folder, patch.object(study_run, "run_trial", noop_trial):
        study = study_in(Path(folder), trials, arguments)
        study_dir = StudyDir.create(study)
        began = time.perf_counter()
        watchers = [study_progress_of(study, quiet=True)]
        result = run_study(study, study_dir, quiet=True, dry=False, watchers=watchers)
        spent = time.perf_counter() - began
        rows = len(study_dir.leaderboard.read_text().splitlines())
        if result.state != "finished" or rows != trials + 1:
            raise SystemExit(f"the study ended {result.state} ({result.message}) with {rows} rows")
    return spent


def run_raw(trials: int, arguments: argparse.Namespace, *, lean: bool) -> float:
    """Seconds of the same with Ray Tune's own means."""
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    own: Any = tune
    sampler = {"tpe": lambda: optuna.samplers.TPESampler(seed=1, constant_liar=arguments.concurrent > 1)}
    sampler["random"] = lambda: optuna.samplers.RandomSampler(seed=1)
    space = {
        "optimizer.lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
        "optimizer.weight_decay": optuna.distributions.FloatDistribution(0, 0.1),
    }
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, LEAN if lean else {}):
        for name in set() if lean else LEAN:
            os.environ.pop(name, None)
        began = time.perf_counter()
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/optuna.db")
        search = OptunaSearch(
            space, METRIC, "max", sampler=sampler[arguments.sampler](), study_name="s", storage=storage
        )
        results = own.Tuner(
            own.with_resources(raw_trial, {"cpu": 1}),
            tune_config=own.TuneConfig(
                search_alg=search,
                scheduler=ASHAScheduler(time_attr="epoch", metric=METRIC, mode="max", max_t=EPOCHS, **ASHA),
                num_samples=trials,
                max_concurrent_trials=arguments.concurrent,
                reuse_actors=True,
            ),
            run_config=own.RunConfig(name="raw", storage_path=folder, verbose=0),
        ).fit()
        spent = time.perf_counter() - began
        if len(results) != trials or results.num_errors:
            raise SystemExit(f"raw Ray Tune: {len(results)} results, {results.num_errors} errors")
    return spent


class Clock:
    """Seconds in named functions, without those in named functions that they call; of one thread at a time."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: dict[int, list[float]] = defaultdict(list)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            inside = self._open[threading.get_ident()]
            inside.append(0.0)
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.seconds[name] += spent - inside.pop()
                if inside:
                    inside[-1] += spent

        return wrapped


def parts() -> list[tuple[str, Any, str]]:
    """Part of the driver, and the function that does it."""
    from cabruca.distributed.cooperative_asha import Cooperative
    from cabruca.distributed.keeping import Keeper
    from cabruca.distributed.search import StudySearch
    from cabruca.distributed.study_books import StudyBooks
    from cabruca.distributed.study_metrics import StudyMetrics
    from cabruca.distributed.study_outputs import Tables
    from cabruca.tracking import study_events
    from cabruca.tracking.study_progress import PlainStudy

    return [
        ("journal, fsync", study_events.Journal, "append"),
        ("state", study_events, "apply"),
        ("tables as it goes", Tables, "on_event"),
        ("tables, report at the end", Tables, "write"),
        ("gauges", StudyMetrics, "on_event"),
        ("log", PlainStudy, "on_event"),
        ("Optuna ask", StudySearch, "_ask"),
        ("Optuna tell", StudySearch, "_tell_epochs"),
        ("Optuna tell", StudySearch, "_tell_newest"),
        ("Optuna tell", StudySearch, "_tell_end"),
        ("search", StudySearch, "suggest"),
        ("search", StudySearch, "on_trial_complete"),
        ("configuration, desk", StudyBooks, "hand_out"),
        ("configuration, desk", StudyBooks, "decided"),
        ("ASHA", Cooperative, "on_trial_result"),
        ("checkpoints", Keeper, "__call__"),
    ]


@contextmanager
def timing() -> Iterator[Clock]:
    """The driver's parts are timed."""
    clock, known = Clock(), parts()
    old = [(owner, name, getattr(owner, name)) for _, owner, name in known]
    for part, owner, name in known:
        setattr(owner, name, clock.timed(part, getattr(owner, name)))
    try:
        yield clock
    finally:
        for owner, name, function in old:
            setattr(owner, name, function)


class _Now:
    """Stands for a handle of the desk: what is sent is there at once."""

    def __getattr__(self, name: str) -> Any:
        return self

    def remote(self, *args: Any) -> None:
        """Nobody is at the desk."""


def run_alone(trials: int, arguments: argparse.Namespace) -> float:
    """Seconds of the driver's own work for a study of no-op trials, without Ray: what Ray Tune calls is called here."""
    import ray

    from cabruca.distributed.cooperative_asha import Cooperative
    from cabruca.distributed.keeping import Keeper
    from cabruca.distributed.search import StudySearch
    from cabruca.distributed.study_books import StudyBooks
    from cabruca.distributed.study_outputs import Tables
    from cabruca.distributed.trial_ending import Ending, last_words
    from cabruca.distributed.trial_reporter import result_of
    from cabruca.tracking.study_dir import StudyDir
    from cabruca.tracking.study_events import Journal
    from cabruca.tracking.study_progress import study_progress_of
    from cabruca.tracking.study_trackers import StudyTrackers

    with tempfile.TemporaryDirectory() as folder, patch.object(ray, "get", lambda sent: sent):
        study = study_in(Path(folder), trials, arguments)
        study_dir = StudyDir.create(study)
        trackers = StudyTrackers(study, study_dir)
        with Journal(study_dir.results) as journal:
            looking = [Tables(study, study_dir), trackers, study_progress_of(study, quiet=True)]
            books = StudyBooks(study, study_dir, journal, looking, desk=_Now(), places=trackers)
            scheduler = Cooperative(books)
            search = StudySearch(books, Keeper(books, print), lambda: False)
            began, live = time.perf_counter(), []
            while True:
                config = search.suggest(str(len(books.state.trials)))
                if isinstance(config, dict):
                    live.append((str(len(books.state.trials) - 1), SimpleNamespace(config=config)))
                    continue
                if not live:
                    return time.perf_counter() - began
                name, trial = live.pop(0)
                number = trial.config["trial"]
                metrics = {METRIC: value_of(books.state.trials[number].params)}
                told = result_of(1, 1, metrics, 0.0)
                flat = {**told, **{f"m/{key}": value for key, value in told.pop("m").items()}}
                scheduler.on_trial_result(None, trial, flat)
                search.on_trial_result(name, flat)
                search.on_trial_complete(name, last_words(number, Ending("finished", 1, "")))
