"""One real epoch of the base configuration, with the resources of a trial: what a study will cost, before it begins."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cabruca import errors
from cabruca.config.schema import Config
from cabruca.config.study import Study, trial_config
from cabruca.distributed.folder_sizes import bytes_of
from cabruca.errors import CabrucaError, RunError, TrainingDiverged
from cabruca.preparing import TaskFactory
from cabruca.run import run_training
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_estimate import DryEpoch
from cabruca.train.protocols import BaseCallback, Record, RunInfo

ROOM_S = 30.0
"""How long the epoch waits for what others, such as a driver that was killed, are giving back."""


@dataclass
class Watch(BaseCallback):
    """When the epoch began and ended, when its steps were taken, and what it measured."""

    began: float = 0.0
    ended: float = 0.0
    steps: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def on_start(self, info: RunInfo) -> None:
        self.began = time.time()

    def on_step(self, record: Record) -> None:
        self.steps[record.step] = time.time()  # of workers not every step is told

    def on_epoch(self, record: Record) -> None:
        self.ended, self.metrics = time.time(), dict(record.metrics)

    @property
    def warming_s(self) -> float:
        """What the first step took longer than the others on average, and no other epoch's does; 0 for one step."""
        if len(self.steps) < 2:
            return 0.0
        (first, warm), (last, end) = list(self.steps.items())[:: len(self.steps) - 1]
        return max(0.0, warm - self.began - (end - warm) / (last - first) * first)

    def times(self, asked_at: float) -> tuple[float, float]:
        """`seconds` and `startup_s` of a `DryEpoch`."""
        warming = self.warming_s
        return self.ended - self.began - warming, max(0.0, self.began - asked_at) + warming


def dry_config(study: Study, folder: Path) -> Config:
    """The base configuration as a trial has it, one epoch long, without trackers."""
    config = trial_config(study, {}, number=0, folder=folder)
    quiet = {"mlflow": False, "wandb": False}
    once = {"num_epochs": 1, "stages": (), "unfreeze": ()}
    return config.model_copy(
        update={
            "tracking": config.tracking.model_copy(update=quiet),
            "training": config.training.model_copy(update=once),
            "validation": config.validation.model_copy(update={"frequency": 1}),
        }
    )


def try_epoch(
    study: Study, study_dir: StudyDir, task: TaskFactory | None, resources: dict[str, float], cores: int
) -> DryEpoch:
    """Run the epoch in the connected cluster, in a folder inside the study that is removed afterwards.

    Args:
        resources: of a trial's own process. cores: of a trial's process, or of each of its workers.

    Raises:
        CabrucaError, TrainingDiverged: the base configuration does not run.
    """
    import ray

    untyped: Any = ray
    folder = (study_dir.path / ".dry").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    options: dict[str, Any] = {"num_cpus": resources.get("cpu", 0), "num_gpus": resources.get("gpu", 0)}
    options["max_retries"] = 0
    if "memory" in resources:
        options["memory"] = resources["memory"]
    try:
        config = dry_config(study, folder)
        one = untyped.remote(**options)(_one_epoch)
        kind, found = untyped.get(
            one.remote(_Asked(config, task, study.config.workers_per_trial, cores, str(Path.cwd()), time.time()))
        )
    except untyped.exceptions.RayError as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise RunError(f"the dry epoch of the base configuration ended with its process ({said})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if kind != "done":
        known: type[Exception] = TrainingDiverged if kind == "TrainingDiverged" else getattr(errors, kind, RunError)
        raise known(f"the dry epoch of the base configuration failed: {found}")
    assert isinstance(found, DryEpoch)
    return found


@dataclass(frozen=True)
class _Asked:
    """What the epoch's process is given."""

    config: Config
    task: TaskFactory | None
    workers: int
    cores: int
    folder: str
    asked_at: float


def _one_epoch(asked: _Asked) -> tuple[str, DryEpoch | str]:
    """In a process of the cluster. What goes wrong comes back as its class and message."""
    with contextlib.suppress(OSError):
        os.chdir(asked.folder)
    watch, config = Watch(), asked.config
    try:
        if asked.workers == 1:
            run_training(config, quiet=True, task_factory=asked.task, callbacks=[watch], cores=asked.cores, test=False)
        else:
            from cabruca.distributed.ray_train import train_on_workers
            from cabruca.distributed.room import wait_for_room

            end = time.monotonic() + ROOM_S
            wait_for_room(config, lambda: "too long" if time.monotonic() > end else None)
            train_on_workers(config, quiet=True, task_factory=asked.task, callbacks=[watch], test=False)
    except (CabrucaError, TrainingDiverged) as error:
        return type(error).__name__, str(error)
    except Exception as error:
        return "RunError", f"{type(error).__name__}: {error}"
    run_dir = RunDir(Path(config.output_dir) / str(config.experiment_name))
    seconds, startup_s = watch.times(asked.asked_at)
    return "done", DryEpoch(
        seconds=seconds,
        startup_s=startup_s,
        bytes_=bytes_of(run_dir.path),
        memory_mb=_memory_mb(watch.metrics, asked.workers),
        metrics=watch.metrics,
        checkpoint_bytes=run_dir.latest.stat().st_size if run_dir.latest.is_file() else None,
    )


def _memory_mb(metrics: dict[str, float], workers: int) -> float:
    """Peak of this process and the loader processes it had; of a trial with workers, also rank 0's, times them."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    own = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit
    return own if workers == 1 else own + workers * metrics.get("memory/rss_mb", own)
