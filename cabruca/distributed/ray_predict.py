"""`cabruca predict --workers N`: actors look at the windows, this process stitches them in their order.

A worker gets whole batches, the same ones that one process would make, and the answers are taken in the order of the
batches: the map does not depend on how many workers there are, or on which is faster.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config, DistributedConfig
from cabruca.data.caching import bounded_cache
from cabruca.distributed.cluster import cluster_for, free_resources, import_ray
from cabruca.distributed.group import muster
from cabruca.distributed.preflight import workers_that_fit
from cabruca.distributed.team import Team
from cabruca.errors import CabrucaError, RunError
from cabruca.evaluation import load_trained
from cabruca.predict.begin import check_heads, make_request
from cabruca.predict.finished import finished
from cabruca.predict.found import Look, Reading
from cabruca.predict.network import TrainedNetwork
from cabruca.predict.plan import make_plan
from cabruca.predict.pool import Looked, Windows
from cabruca.predict.reading import CACHE_BYTES, Network, Reader, look_at
from cabruca.predict.run import Summary, run
from cabruca.predict.scenes import check_output
from cabruca.predict.watcher import Watcher
from cabruca.runtime import Runtime, ThreadBudget, choose_device, set_threads

AHEAD = 2
"""Batches that a worker has before it: it reads the next while the answer to the last is on its way."""


@dataclass(frozen=True)
class FromCheckpoint:
    """Makes the network inside a worker.

    Attributes:
        path: absolute, seen by every node. cpus: of the worker.
    """

    path: str
    device: str
    nms_iou: float | None
    cpus: int

    def __call__(self) -> Network:
        set_threads(ThreadBudget(compute=self.cpus, loaders=0))
        runtime = Runtime.single(choose_device(self.device))
        return TrainedNetwork(load_trained(self.path), runtime, nms_iou=self.nms_iou)


class Worker:
    """The actor.

    Args:
        make: makes its network.
    """

    def __init__(self, make: Callable[[], Network]) -> None:
        self._network = make()
        self._cache = contextlib.ExitStack()  # for the life of the actor
        self._cache.enter_context(bounded_cache(CACHE_BYTES))

    def look(self, reader: Reader, reading: Reading, windows: Windows) -> list[Look]:
        return look_at(self._network, reader.read(windows), reading)


class RayPool:
    """A `Pool` of actors on the connected cluster.

    Args:
        make: makes a worker's network; travels to it. workers: how many. team: what each takes.
        max_failures: times that a worker which was lost is started again; its batches are done again.
    """

    def __init__(self, make: Callable[[], Network], workers: int, team: Team, *, max_failures: int) -> None:
        ray = import_ray()
        each = dict(team.resources)
        options = {
            "num_cpus": each.pop("CPU", 1),
            "num_gpus": each.pop("GPU", 0),
            "resources": each or None,
            "max_restarts": max_failures,
            "max_task_retries": -1,
        }
        self._actors = [ray.remote(Worker).options(**options).remote(make) for _ in range(workers)]

    def looks(self, reader: Reader, reading: Reading, batches: Iterable[Windows]) -> Iterator[Looked]:
        ray = import_ray()
        shared = (ray.put(reader), ray.put(reading))
        pending: deque[tuple[Windows, int, Any]] = deque()
        load = [0] * len(self._actors)
        for batch in batches:
            if len(pending) == AHEAD * len(self._actors):
                yield self._taken(pending, load)
            k = load.index(min(load))
            load[k] += 1
            pending.append((batch, k, self._actors[k].look.remote(*shared, batch)))
        while pending:
            yield self._taken(pending, load)

    @staticmethod
    def _taken(pending: deque[tuple[Windows, int, Any]], load: list[int]) -> Looked:
        """The answer to the oldest batch.

        Raises:
            CabrucaError: as the worker raised it. RunError: a worker was lost too often.
        """
        ray = import_ray()
        batch, k, answer = pending.popleft()
        load[k] -= 1
        try:
            return batch, ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, CabrucaError) else None
            raise cause or error from error
        except ray.exceptions.RayActorError as error:
            said = str(error).strip().splitlines()[0]
            raise RunError(f"worker {k} was lost more often than it is started again ({said}); go on with --resume"
                           ) from error  # fmt: skip

    def close(self) -> None:
        """Let the workers go."""
        ray = import_ray()
        for actor in self._actors:
            ray.kill(actor)


def predict_on_workers(
    checkpoint: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    distributed: DistributedConfig,
    device: str = "auto",
    resume: bool = False,
    watcher: Watcher | None = None,
    **options: Any,
) -> Summary:
    """Map the crowns of one or several rasters, the windows shared by workers.

    Args:
        distributed: how many workers, where; every node sees checkpoint and rasters under the same paths. Others as
            `predict.begin.predict`.

    Raises:
        CabrucaError: as there; workers that cannot be had.
    """
    request = make_request(images, out, options)
    check_output(request, resume=resume)
    trained = load_trained(checkpoint)  # before seconds go into a cluster
    plan = make_plan(request, trained.config, trained.spec, trained.facts, checkpoint=Path(checkpoint))
    check_heads(plan, trained.config.model.heads)
    del trained
    if (done := finished(plan, resume=resume)) is not None:
        return done
    config = config_from_dict({"device": device, "experiment_name": "predict"})
    config = config.model_copy(update={"distributed": distributed})
    with cluster_for(config):
        ray = import_ray()
        team = muster(ray, config)
        kind = "cuda" if team.use_gpu else "cpu"
        make = FromCheckpoint(str(Path(checkpoint).absolute()), kind, plan.nms_iou, team.cpus)
        pool = RayPool(make, _workers(ray, team, config), team, max_failures=distributed.max_failures)
        try:
            return run(plan, pool, watcher)
        finally:
            pool.close()


def _workers(ray: Any, team: Team, config: Config) -> int:
    """Of a number from least to most: as many as there is room for now."""
    if not team.elastic:
        return team.most
    return max(team.least, min(team.most, sum(workers_that_fit(team.resources, free_resources(ray)))))
