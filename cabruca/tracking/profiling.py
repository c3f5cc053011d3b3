"""`training.profile`: what each operator of some optimizer steps costs, in time and memory, under profile/."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile

from cabruca.config.schema import Config
from cabruca.runtime import Runtime
from cabruca.tracking.files import write_atomic
from cabruca.tracking.run_dir import RunDir
from cabruca.train.protocols import (
    NOTICE,
    Autocast,
    BaseCallback,
    Record,
    RunInfo,
    Task,
    TaskAround,
    TrainResult,
    Validation,
)

_log = logging.getLogger("cabruca.tracking")

ROWS = 10
"""Operators in the table."""


class Profiler(BaseCallback):
    """Profiles the optimizer steps that hold the batches `first` to `last`, counted from 0 when this process begins to
    train; validations between them are left out.

    It is called in the thread that trains (torch's profiler sees no other), and it never raises: what goes wrong
    costs one warning and the profile.

    Args:
        folder: gets `trace.json` (Chrome's format) and `operators.txt` (the costliest operators by their own time).
        first, last: forward passes of this rank.
    """

    def __init__(self, folder: Path, first: int, last: int) -> None:
        self._folder, self._first, self._last = folder, first, last
        self._profile: Any = None
        self._activities = [ProfilerActivity.CPU]
        self._accumulation = 1
        self._batches = self._batches_before_step = 0
        self._began: tuple[int, int] | None = None  # first batch and first step of the profile
        self._step = 0
        self._running = self._done = self._started = False

    def around(self, task: Task) -> Task:
        """The task, whose batches are counted and whose validations are left out."""
        return _Profiled(task, self)

    def on_start(self, info: RunInfo) -> None:
        self._started = True
        self._accumulation = max(1, info.effective_batch // info.batch_size)
        self._step = info.resumed_step
        if info.device.startswith("cuda"):
            self._activities.append(ProfilerActivity.CUDA)

    def on_step(self, record: Record) -> None:
        self._batches_before_step, self._step = self._batches, record.step
        if self._began is not None and self._batches > self._last:
            self._safely(self._finish)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._done:
            return
        asked = f"training.profile_batches [{self._first}, {self._last}]"
        if self._began is None:
            _log.warning(
                "training ended after %d batches, before %s: there is no profile; lower its first number",
                self._batches,
                asked,
            )
            return
        _log.warning("training ended after %d batches, inside %s", self._batches, asked)
        self._safely(self._finish)

    def batch(self) -> None:
        """A batch is about to be asked for. Those before the start are of no step: torch.compile is tried on them."""
        if not self._started:
            return
        at_step = self._batches == self._batches_before_step
        if at_step and self._began is None and self._batches + self._accumulation > self._first:
            self._safely(self._begin)
        self._batches += 1

    def pause(self, paused: bool) -> None:
        """Leave out what follows, or take it in again."""
        if self._profile is not None and self._running is paused:
            self._running = not paused
            self._safely(lambda: self._profile.toggle_collection_dynamic(not paused, self._activities))

    def _safely(self, work: Callable[[], None]) -> None:
        if self._done:
            return
        try:
            work()
        except Exception as error:
            self._done, self._profile = True, None
            reason = next(iter(str(error).splitlines()), "")
            _log.warning("profiling failed and training goes on without it (%s: %s)", type(error).__name__, reason)

    def _begin(self) -> None:
        self._began = (self._batches, self._step + 1)
        self._profile = profile(activities=self._activities, profile_memory=True)
        self._profile.start()
        self._running = True

    def _finish(self) -> None:
        assert self._began is not None
        found, self._profile = self._profile, None
        found.stop()
        batch, step = self._began
        what = f"batches {batch} to {self._batches - 1} (optimizer steps {step} to {self._step})"
        self._folder.mkdir(parents=True, exist_ok=True)
        trace = self._folder / "trace.json"
        found.export_chrome_trace(str(trace))
        write_atomic(self._folder / "operators.txt", f"{what}, without validations\n\n{self._table(found)}\n")
        self._done = True
        size = trace.stat().st_size / 1e6
        _log.info("profile of %s: %s and trace.json (%.0f MB, for ui.perfetto.dev)", what,
                  self._folder / "operators.txt", size, extra=NOTICE)  # fmt: skip

    def _table(self, found: Any) -> str:
        """The costliest operators: their own time and its share, memory, calls."""
        where = "device" if ProfilerActivity.CUDA in self._activities else "cpu"
        table: str = found.key_averages().table(
            sort_by=f"self_{where}_time_total", row_limit=ROWS, max_name_column_width=60
        )
        return table


def profiled(task: Task, run_dir: RunDir, config: Config) -> tuple[Task, list[Profiler]]:
    """The task and the callback that a run with `training.profile` needs; without it the task as it is and none."""
    if not config.training.profile:
        return task, []
    profiler = Profiler(run_dir.profile, *config.training.profile_batches)
    return profiler.around(task), [profiler]


class _Profiled(TaskAround):
    """Tells a profiler when a batch is asked for and when a validation runs."""

    def __init__(self, task: Task, profiler: Profiler) -> None:
        super().__init__(task)
        self._profiler = profiler

    def train_batches(self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime) -> Iterable[Any]:
        self._profiler.pause(False)
        return self._counted(iter(self._task.train_batches(epoch, index_batches, runtime)), len(index_batches))

    def _counted(self, batches: Iterator[Any], number: int) -> Iterator[Any]:
        try:
            for _ in range(number):
                self._profiler.batch()
                yield from islice(batches, 1)
        finally:
            if hasattr(batches, "close"):  # loader processes
                batches.close()

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        self._profiler.pause(True)
        return self._task.validate(model, runtime, autocast, epoch=epoch)
