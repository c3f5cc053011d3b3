"""Runtime: who am I? Which rank of how many, on which device, with how many threads.

The only place that decides on a device, a precision or a thread count, and the only one that talks to a
process group. It is made once, at the edge, and passed in; nothing inside training looks around by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist

from cabruca.errors import DeviceError

DEVICES = ("auto", "cpu", "cuda", "mps")


class DeviceProbe(Protocol):
    """What the machine says of its devices; tests pass a made-up one."""

    def cuda(self) -> bool: ...
    def mps(self) -> bool: ...
    def bf16(self, device: str) -> bool: ...
    def mps_autocast(self) -> bool: ...


class TorchProbe:
    """The real machine, as torch sees it."""

    def cuda(self) -> bool:
        return torch.cuda.is_available()

    def mps(self) -> bool:
        return torch.backends.mps.is_available()

    def bf16(self, device: str) -> bool:
        if device == "cuda":
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        # oneDNN runs bf16 fast only with these instructions; elsewhere it is emulated and slower than fp32
        return device == "cpu" and bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())

    def mps_autocast(self) -> bool:
        return torch.amp.is_autocast_available("mps")


def choose_device(asked: str, probe: DeviceProbe | None = None) -> str:
    """`auto` becomes cuda, mps or cpu, the first that is there.

    Raises:
        DeviceError: the device asked for is not there.
    """
    probe = probe or TorchProbe()
    there: dict[str, Callable[[], bool]] = {"cuda": probe.cuda, "mps": probe.mps, "cpu": lambda: True}
    if asked == "auto":
        return next(name for name, found in there.items() if found())
    if asked not in there:
        raise DeviceError(f"device '{asked}' is not one of {', '.join(DEVICES)}; use device: auto")
    if not there[asked]():
        found = ", ".join(name for name, check in there.items() if check())
        raise DeviceError(
            f"device '{asked}' was asked for and is not available here (found: {found}); use --device auto"
        )
    return asked


@dataclass(frozen=True)
class ThreadBudget:
    """Compute threads and loader processes that share the cores."""

    compute: int
    loaders: int


def thread_budget(loaders_wanted: int | str | None, cores: int | None = None) -> ThreadBudget:
    """Split the cores: loaders first (but one core is always left to compute), the rest computes.

    Two busy processes that each take every core are many times slower than two that share (measured on
    2 cores: a step of 0.7 s took 12 s), so compute threads + loader processes never exceed the cores.

    Args:
        loaders_wanted: `data.num_workers`; "auto" or None chooses a quarter of the cores, rounded down.
        cores: default: the CPUs this process may use, or `OMP_NUM_THREADS` when it is set lower.
    """
    if cores is None:
        cores = available_cores()
    wanted = loaders_wanted if isinstance(loaders_wanted, int) else cores // 4
    loaders = max(0, min(wanted, cores - 1))
    return ThreadBudget(compute=max(1, cores - loaders), loaders=loaders)


def available_cores() -> int:
    """CPUs this process may run on, at most `OMP_NUM_THREADS` where that is set."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        cores = os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, int(limit)) if limit.isdigit() and int(limit) > 0 else cores)


def set_threads(budget: ThreadBudget) -> None:
    """Make torch compute with the budget's threads (process-wide; called once, at the edge)."""
    torch.set_num_threads(budget.compute)


@dataclass(frozen=True)
class Runtime:
    """Rank and device of this process.

    Attributes:
        rank, world_size, local_rank: place among the processes that train together.
        device: where this rank computes.
        loaders: loader processes this rank may start.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    loaders: int = 0

    @classmethod
    def single(cls, device: str | torch.device = "cpu", *, loaders: int = 0) -> Runtime:
        """Alone: every collective is the identity."""
        return cls(rank=0, world_size=1, local_rank=0, device=torch.device(device), loaders=loaders)

    @classmethod
    def from_process_group(cls, device: str | torch.device, *, loaders: int = 0) -> Runtime:
        """From the process group that is already initialised."""
        local = int(os.environ.get("LOCAL_RANK", "0"))
        return cls(dist.get_rank(), dist.get_world_size(), local, torch.device(device), loaders)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum over ranks (a new tensor)."""
        return value if self.world_size == 1 else self.sum_into(value.clone())

    def sum_into(self, value: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, in the place of `value`: for what is large and not needed again."""
        if self.world_size > 1:
            dist.all_reduce(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        """One object a rank, in rank order, on every rank."""
        if self.world_size == 1:
            return [value]
        out: list[Any] = [None] * self.world_size
        dist.all_gather_object(out, value)
        return out

    def share(self, value: Any) -> Any:
        """Rank 0's object, on every rank; what the others give is ignored."""
        if self.world_size == 1:
            return value
        held = [value if self.is_main else None]
        dist.broadcast_object_list(held, src=0, device=self.device if self.device.type == "cuda" else None)
        return held[0]

    def any(self, flag: bool) -> bool:
        """True on all ranks when it is on one."""
        if self.world_size == 1:
            return flag
        return bool(self.sum(torch.tensor(int(flag), device=self.device)).item())

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()
