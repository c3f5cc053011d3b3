"""Training on a worker: the task, the run's folder on rank 0, and where to go on after workers were lost."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.config.schema import Config
from cabruca.distributed.mirror import Mirror, MirroredReporter, mirror_of
from cabruca.distributed.ray_metrics import RayMetrics
from cabruca.distributed.relay import LogRelay, Relay
from cabruca.distributed.reporter import Lines, WorkerReporter
from cabruca.distributed.worker import Place
from cabruca.errors import RunError
from cabruca.preparing import TaskFactory, watched
from cabruca.run import Wrap, unchanged
from cabruca.runtime import Runtime
from cabruca.tracking.reporter import LocalReporter
from cabruca.tracking.resume import with_statistics
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_place import StudyPlace
from cabruca.tracking.weights import WithWeights
from cabruca.train import checkpoint
from cabruca.train.loop import train
from cabruca.train.protocols import Callback, State, Task, TrainResult
from cabruca.train.ready import make_ready

_log = logging.getLogger("cabruca.distributed")


@dataclass(frozen=True)
class TrainJob:
    """What the driver sends to the workers of a run.

    Attributes:
        place, desk: see `worker.Job`.
        config: resolved. run_dir: the run's folder, absolute. task: makes the task.
        statistics: `state()` of the driver's task, so that nobody measures the data again.
        begin: handle of the state that the run begins with, or None. weights: handle of the weights that a fresh model
            begins with and the name of their file, or None.
        wrap, within: of a study's trial, as `run.run_training`; the reporter that is wrapped is rank 0's.
    """

    place: Place
    desk: Any
    config: Config
    run_dir: str
    task: TaskFactory
    statistics: State
    begin: Any = None
    weights: Any = None
    wrap: Wrap = unchanged
    within: StudyPlace | None = None

    def run(self, runtime: Runtime) -> TrainResult:
        """Train, from where the run is."""
        run_dir = RunDir(Path(self.run_dir))
        mirror = mirror_of(self.config) if runtime.is_main else None
        state = runtime.share(self._state(run_dir, mirror) if runtime.is_main else None)
        task = make_ready(self.config, self._make_task())  # before the log is open: the driver has said all this
        workers = runtime.gather((os.getpid(), socket.gethostname()))
        local = LocalReporter(run_dir, self.config, state, quiet=True) if runtime.is_main else None
        kept = None if local is None else self.wrap(MirroredReporter(local, run_dir, mirror))
        gauges = self._gauges(runtime, run_dir)
        reporter = WorkerReporter(runtime, kept, state, self._lines(), gauges)
        with self._told(runtime, local):
            try:
                watchers: list[Callback] = []
                given: Task = task
                if local is not None:
                    local.start()
                    gauges.show_restarts(self._say_who(workers, state))
                    given, watchers = watched(
                        task, run_dir, self.config, runtime.device, [Relay(self.desk)], within=self.within
                    )
                return train(self.config, given, runtime=runtime, reporter=reporter, callbacks=watchers)
            except BaseException as error:
                reporter.finish(None, error)
                raise

    def _state(self, run_dir: RunDir, mirror: Mirror | None) -> State | None:
        """What this attempt begins with: what the run itself has saved, else what it was to begin with.

        Raises:
            RunError: the run's folder is not to be seen from here.
        """
        import ray

        if mirror is not None:
            mirror.fetch(run_dir)
        if not run_dir.config_yaml.is_file():
            raise RunError(
                f"{run_dir.path} is not to be seen from {socket.gethostname()}; put output_dir on a disk that all "
                "machines share, or set distributed.storage_path"
            )
        if not ray.get(self.desk.has_saved.remote()):
            found: State | None = None if self.begin is None else ray.get(self.begin)
            return found
        path = run_dir.latest if checkpoint.is_intact(run_dir.latest) else checkpoint.newest_intact(run_dir.checkpoints)
        if path is None:
            raise RunError(f"{run_dir.checkpoints} holds no intact checkpoint any more; start the run anew")
        return checkpoint.read(path)

    def _make_task(self) -> Task:
        import ray

        own = self.task(with_statistics(self.config, self.statistics))
        if self.weights is None:
            return own
        weights, source = ray.get(self.weights)
        return WithWeights(own, weights, source)

    def _lines(self) -> Lines:
        import ray
        import ray.train

        return Lines(
            stop_asked=lambda: ray.get(self.desk.stop_asked.remote()),
            saved=lambda place: ray.get(self.desk.saved.remote(place)),
            publish=ray.train.report,
        )

    def _gauges(self, runtime: Runtime, run_dir: RunDir) -> RayMetrics:
        from ray.util.metrics import Gauge

        return RayMetrics(run_dir.name, runtime.rank, self.config.training.monitor_metric, Gauge, within=self.within)

    def _say_who(self, workers: list[tuple[int, str]], state: State | None) -> int:
        """How often workers of this run were started before."""
        import ray

        at = {key: int((state or {}).get(key, 0)) for key in ("epoch", "step")}
        attempt = int(ray.get(self.desk.began.remote()))
        who = ", ".join(f"rank {rank} is process {pid} on {host}" for rank, (pid, host) in enumerate(workers))
        _log.info("workers: %s", who)
        ray.get(self.desk.tell.remote("workers", len(workers), attempt, at["epoch"], at["step"]))
        return attempt

    @contextmanager
    def _told(self, runtime: Runtime, local: LocalReporter | None) -> Iterator[None]:
        """Rank 0's warnings and notices reach the driver's terminal."""
        if local is None:
            yield
            return
        handler, logger = LogRelay(self.desk), logging.getLogger("cabruca")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
