"""A group of workers that does one job, from start to end: the driver's side of every command that has --workers.

Ray Train starts the workers, notices which are lost and starts them again. What it does not do is done here: its
reports are not what a run resumes from (that is the run's own folder), and a signal asks the workers to save and stop.
"""

from __future__ import annotations

import importlib
import logging
import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cabruca import errors
from cabruca.config.schema import Config
from cabruca.distributed.cluster import ASKED_AT, all_resources, free_resources
from cabruca.distributed.desk import Desk, Failure
from cabruca.distributed.mirror import opened
from cabruca.distributed.preflight import check_fit
from cabruca.distributed.team import Team, asked_by, team_of
from cabruca.distributed.worker import Job, work
from cabruca.errors import RunError

_log = logging.getLogger("cabruca.distributed")

POLL_S = 0.25
WARN_S = 45.0
"""Seconds without workers after which it is said that they are waited for."""

START_FAILURES = 3
"""Times that a group which failed to start is tried again; Ray's own default is for ever, in silence."""

STALE_S = 30.0
"""Seconds for which a machine that is gone may still be counted: Ray's health check, and its look at the nodes every
20 s. Until then an elastic group is started too large, and fails to."""

Hear = Callable[..., None]
"""Called with every message of the workers: its kind, then what belongs to it."""


def muster(ray: Any, config: Config, *, shares: bool = False) -> Team:
    """The team that `config` asks for, if it fits the cluster now.

    Args:
        shares: with other trials, that may be taking or giving back what is free now; the workers wait for it.

    Raises:
        ConfigError: it does not; says what is free.
    """
    everything = all_resources(ray)
    team = team_of(config, everything)
    check_fit(asked_by(team, config), everything if shares else free_resources(ray))
    return team


def open_desk(ray: Any, kind: type = Desk) -> Any:
    """The desk of a job or a study: an actor without resources of its own, on the driver's node, which is there to the
    end."""
    here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
    return ray.remote(kind).options(num_cpus=0, max_restarts=0, label_selector=here).remote()


def run_group(job: Job, team: Team, config: Config, *, hear: Hear, scratch: str) -> tuple[Any, int | None]:
    """Run `job` on the connected cluster until it ends.

    Args:
        job: its `desk` is open. hear: called in this thread with what the workers tell.
        scratch: folder or URI for Ray's own bookkeeping, seen by every node; emptied at the end.

    Returns:
        What rank 0's work came to, and the signal that asked it to stop or None.

    Raises:
        CabrucaError, TrainingDiverged: as a worker raised it, with its rank. RunError: workers were lost more often
            than `distributed.max_failures` allows, or did not start.
    """
    import ray

    _clear(scratch, config.experiment_name or "job")  # of a driver that was killed
    name = f"{config.experiment_name or 'job'}_{time.time_ns()}"  # never one that Ray Train would go on with
    ended: list[Exception | None] = []
    trainer = _trainer(job, team, config, name, scratch)
    thread = threading.Thread(target=_fit, args=(trainer, ended), name="cabruca-group", daemon=True)
    follower = _Follower(job.desk, hear, _patience_s(config))
    try:
        with _stop_on_signals(job.desk) as received:
            thread.start()  # not the main thread: there Ray Train would take Ctrl-C for itself
            while thread.is_alive():
                thread.join(POLL_S)
                follower.look()
        follower.listen()
        failure = ray.get(job.desk.failure.remote())
        if failure is not None or ended[0] is not None:
            raise _error_of(failure, ended[0], follower.troubles, config) from ended[0]
        found = ray.get(job.desk.result.remote())
        if found is None:
            raise RunError("the workers ended without a result; go on with --resume auto")
        return found, received[0] if received else None
    finally:
        _clear(scratch, config.experiment_name or "job")


def _clear(scratch: str, run: str) -> None:
    """Remove Ray Train's books of a run; who has its folder claimed is the only one at work on it."""
    from pyarrow.fs import FileSelector, FileType

    with suppress(OSError, RunError):  # a place that is gone has nothing to clear
        place, root = opened(scratch)
        for info in place.get_file_info(FileSelector(root, allow_not_found=True)):
            if info.type == FileType.Directory and re.fullmatch(rf"{re.escape(run)}_\d+", info.base_name):
                place.delete_dir(info.path)
    if "://" not in scratch:
        with suppress(OSError):  # others are at work there
            Path(scratch).rmdir()


def _trainer(job: Job, team: Team, config: Config, name: str, scratch: str) -> Any:
    import ray.train
    import ray.train.torch

    own: Any = ray.train  # its stubs are of the version before
    internal: Any = importlib.import_module("ray.train.v2._internal.constants")
    internal.ENV_VARS_TO_PROPAGATE.add(ASKED_AT)  # the watchman is a process of the cluster
    settings = config.distributed
    return ray.train.torch.TorchTrainer(
        work,
        train_loop_config={"job": job},
        torch_config=ray.train.torch.TorchConfig(backend=team.backend),
        scaling_config=own.ScalingConfig(
            num_workers=(team.least, team.most) if team.elastic else team.most,
            use_gpu=team.use_gpu,
            resources_per_worker=dict(team.resources),
            placement_strategy=settings.placement_strategy,
            elastic_resize_monitor_interval_s=settings.elastic_check_s,
        ),
        run_config=own.RunConfig(
            name=name,
            storage_path=scratch,
            failure_config=own.FailureConfig(
                max_failures=settings.max_failures,
                controller_failure_limit=_start_failures(config, elastic=team.elastic),
            ),
        ),
    )


def _start_failures(config: Config, *, elastic: bool) -> int:
    """Failed starts that a whole run may have; Ray does not begin to count anew when workers are at work again."""
    settings = config.distributed
    if not elastic:
        return max(START_FAILURES, settings.max_failures)
    return START_FAILURES + settings.max_failures * math.ceil(STALE_S / settings.start_timeout_s)


def _fit(trainer: Any, ended: list[Exception | None]) -> None:
    try:
        trainer.fit()
        ended.append(None)
    except Exception as error:  # Ray wraps what workers raise in many ways
        ended.append(error)


def _patience_s(config: Config) -> float:
    """How long there may be no workers at work: all attempts to start them, and Ray's own seconds between."""
    return (START_FAILURES + 1) * config.distributed.start_timeout_s + 30.0


class _Follower:
    """Hands on what the workers tell, and notices when there have been no workers for too long."""

    def __init__(self, desk: Any, hear: Hear, patience_s: float) -> None:
        self._desk, self._hear, self._patience_s = desk, hear, patience_s
        self._warned = False
        self.troubles: list[str] = []

    def look(self) -> None:
        """Listen, and see to it that nobody waits in silence.

        Raises:
            RunError: there have been no workers for longer than all attempts to start them may take.
        """
        import ray

        self.listen()
        silent_s = ray.get(self._desk.silent_s.remote())
        if silent_s > self._patience_s:
            raise RunError(
                f"there have been no workers for {silent_s:.0f} s: the cluster has too little for them; look at its "
                "dashboard or `ray status`, ask for fewer, or raise distributed.start_timeout_s"
            )
        if silent_s > WARN_S and not self._warned:
            _log.warning("waiting for workers since %.0f s; giving up after %.0f s", silent_s, self._patience_s)
        self._warned = silent_s > WARN_S

    def listen(self) -> None:
        import ray

        for kind, *rest in ray.get(self._desk.take.remote()):
            if kind == "workers":
                self.troubles = []
            elif kind == "trouble":
                self.troubles.append(f"worker {rest[0]}: {rest[1]}")
                _log.warning("worker %d failed: %s", rest[0], rest[1])
            self._hear(kind, *rest)


def _error_of(failure: Failure | None, error: Exception | None, troubles: list[str], config: Config) -> Exception:
    if failure is not None:
        known: type[Exception] = getattr(errors, failure.kind, RunError)
        named = failure.rank == 0 or "(worker " in failure.message  # what all ranks found out together names its own
        return known(failure.message if named else f"worker {failure.rank}: {failure.message}")
    settings = config.distributed
    if type(error).__name__ == "ControllerError":
        reason = str(getattr(error, "controller_failure", error)).strip().splitlines()[0]
        return RunError(
            f"the workers did not start within distributed.start_timeout_s {settings.start_timeout_s:g} s "
            f"({reason}); see `cabruca doctor`, ask for fewer, or raise it"
        )
    said = troubles[0] if troubles else _reason(error)
    return RunError(
        f"workers were lost more often than distributed.max_failures {settings.max_failures} allows; last: {said}; "
        "go on with --resume auto"
    )


def _reason(error: Exception | None) -> str:
    """The line of Ray's error that says which worker ended and how."""
    lost = dict(getattr(error, "worker_failures", None) or {})
    if lost:
        rank, why = next(iter(lost.items()))
        return f"worker {rank}: {str(why).strip().splitlines()[0]}"
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


@contextmanager
def _stop_on_signals(desk: Any) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM ask the workers to save and stop; a second one ends the driver at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, _: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        desk.ask_stop.remote(signal.Signals(number).name)

    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in old:
        signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
