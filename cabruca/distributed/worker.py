"""What every worker does, whatever the job: find its rank, device and threads, do the job, say how it ended."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from cabruca.errors import CabrucaError, TrainingDiverged
from cabruca.runtime import Runtime, set_threads, thread_budget

PULSE_S = 5.0
"""Seconds between two signs of life of rank 0."""


@dataclass(frozen=True)
class Place:
    """How the driver wants its workers.

    Attributes:
        cpus: of a worker. use_gpu: whether it has one. loaders: `data.num_workers`. folder: where the command was
            given; relative paths begin there.
    """

    cpus: int
    use_gpu: bool
    loaders: int | str | None
    folder: str


class Job(Protocol):
    """Sent to every worker; plain values and handles only."""

    @property
    def place(self) -> Place: ...

    @property
    def desk(self) -> Any:
        """Handle of the desk actor."""
        ...

    def run(self, runtime: Runtime) -> Any:
        """The work of this rank; what rank 0 gives back reaches the driver."""
        ...


def work(message: Mapping[str, Any]) -> None:
    """The function that Ray Train runs on every worker.

    Raises:
        Exception: whatever the job raised, after the desk was told.
    """
    import ray
    import ray.train

    job: Job = message["job"]
    rank = int(ray.train.get_context().get_world_rank())
    if ray.get(job.desk.failure.remote()) is not None:
        return  # another attempt would fail the same way; the driver says how
    try:
        with _pulse(job.desk) if rank == 0 else contextlib.nullcontext():
            outcome = job.run(make_runtime(job.place))
    except (CabrucaError, TrainingDiverged) as error:
        ray.get(job.desk.fail.remote(rank, type(error).__name__, str(error)))
        raise
    except Exception as error:
        said = (str(error).strip() or "no message").splitlines()[0]
        ray.get(job.desk.trouble.remote(rank, type(error).__name__, said))
        raise
    if rank == 0:
        ray.get(job.desk.finish.remote(outcome))


@contextlib.contextmanager
def _pulse(desk: Any) -> Iterator[None]:
    """Let the driver know that there are workers, also through a long validation."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(PULSE_S):
            desk.pulse.remote()

    desk.pulse.remote()
    threading.Thread(target=beat, name="cabruca-pulse", daemon=True).start()
    try:
        yield
    finally:
        done.set()


def make_runtime(place: Place) -> Runtime:
    """This worker's rank, device, compute threads and loader processes; its CPUs are its budget."""
    import ray.train
    import ray.train.torch

    with contextlib.suppress(OSError):  # a machine without that folder: its configuration has absolute paths
        os.chdir(place.folder)
    budget = thread_budget(place.loaders, place.cpus)
    set_threads(budget)
    context = ray.train.get_context()
    return Runtime(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_rank=context.get_local_rank(),
        device=ray.train.torch.get_device() if place.use_gpu else torch.device("cpu"),
        loaders=budget.loaders,
    )
