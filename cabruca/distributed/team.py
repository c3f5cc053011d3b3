"""How many workers a run asks for, and what each takes of the machines that are there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cabruca.config.schema import Config
from cabruca.distributed.preflight import Asked, Resources
from cabruca.errors import ConfigError

LARGEST_BATCH = 256
"""A larger batch is not advised to make an elastic team's sizes divide it."""


@dataclass(frozen=True)
class Team:
    """`least` to `most` workers, each with `resources`."""

    least: int
    most: int
    resources: dict[str, float]
    use_gpu: bool

    @property
    def cpus(self) -> int:
        """CPUs of a worker: its threads and loader processes."""
        return max(1, int(self.resources.get("CPU", 1)))

    @property
    def backend(self) -> str:
        """Of torch's process group."""
        return "nccl" if self.use_gpu else "gloo"

    @property
    def elastic(self) -> bool:
        return self.least != self.most

    def describe(self) -> str:
        """For people: `2 workers x 1 CPU`."""
        number = f"{self.least} to {self.most}" if self.elastic else str(self.most)
        each = " + ".join(f"{need:g} {name}" for name, need in self.resources.items())
        return f"{number} {'worker' if self.most == 1 else 'workers'} x {each}"


def asked_by(team: Team, config: Config) -> Asked:
    """What the team asks of a cluster."""
    return Asked(team.least, team.most, team.resources, config.distributed.placement_strategy)


def team_of(config: Config, nodes: Sequence[Resources]) -> Team:
    """Resolve `distributed.num_workers`, `use_gpu` and `resources_per_worker`.

    A worker that is not told its CPUs takes an equal share of a node's: of the smallest node, divided by its GPUs or,
    without GPUs, by the workers that come to lie on it.

    Args:
        nodes: all resources of every node, free or not.

    Raises:
        ConfigError: GPUs are asked for and there are none; a Mac's GPU is asked for by many.
    """
    settings = config.distributed
    gpus = int(sum(node.get("GPU", 0.0) for node in nodes))
    use_gpu = _use_gpu(config, gpus)
    asked = settings.num_workers
    if asked == "auto" and gpus == 0:
        raise ConfigError("--workers auto takes the visible GPUs and there is none; give a number, such as --workers 2")
    least, most = asked if isinstance(asked, tuple) else (asked, asked) if isinstance(asked, int) else (gpus, gpus)
    resources = {"CPU": _share(nodes, most, use_gpu=use_gpu), **({"GPU": 1.0} if use_gpu else {})}
    return Team(least, most, {**resources, **settings.resources_per_worker}, use_gpu)


def _use_gpu(config: Config, gpus: int) -> bool:
    asked = config.distributed.use_gpu
    if config.device == "mps":
        raise ConfigError("device 'mps' is one GPU for one process; use --workers 1 without --address, or --device cpu")
    wanted = asked is True or (asked == "auto" and config.device == "cuda")
    if wanted and gpus == 0:
        raise ConfigError("workers on GPUs are asked for and the cluster has none; use --device cpu, or add nodes")
    if asked is True and config.device == "cpu":
        raise ConfigError("distributed.use_gpu true contradicts device 'cpu'; leave one of them out")
    return wanted or (asked == "auto" and config.device == "auto" and gpus > 0)


def _share(nodes: Sequence[Resources], workers: int, *, use_gpu: bool) -> float:
    """CPUs of a worker, at least 1."""
    useful = [node for node in nodes if node.get("GPU", 0.0) > 0] if use_gpu else list(nodes)
    if not useful:
        return 1.0
    if use_gpu:
        shares = [node.get("CPU", 1.0) / node["GPU"] for node in useful]
    else:
        a_node = -(-workers // len(useful))
        shares = [node.get("CPU", 1.0) / a_node for node in useful]
    return float(max(1, int(min(shares))))


def check_batch(config: Config, team: Team) -> None:
    """Every number of workers that the run may come to must divide the batch.

    Raises:
        ConfigError: one does not.
    """
    batch = config.data.batch_size
    for workers in range(team.least, team.most + 1):
        if batch % workers:
            good = [n for n in range(1, batch + 1) if batch % n == 0]
            raise ConfigError(
                f"data.batch_size {batch} does not divide over {workers} workers; use "
                f"{' or '.join(map(str, [n for n in good if n != 1] or good))} workers, or {_batch_for(team, batch)}"
            )


def _batch_for(team: Team, batch: int) -> str:
    """What else than another number of workers: the next batch that all numbers from least to most divide."""
    step = math.lcm(*range(team.least, team.most + 1))
    every = f" (every number from {team.least} to {team.most} must divide it)" if team.elastic else ""
    if step > LARGEST_BATCH:  # of 2 to 8 workers it is 840
        return f"a narrower range{every}"
    return f"--batch-size {-(-batch // step) * step}{every}"
