"""Real processes for tests: a child that dies of SIGKILL, and two ranks of a gloo process group."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from cabruca.runtime import Runtime


def killed_child(work: Callable[[], None]) -> bool:
    """Run `work` in a forked child; True when the child died of SIGKILL, False when `work` ended by itself."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def kill_myself() -> None:
    """`kill -9` of the calling process."""
    os.kill(os.getpid(), signal.SIGKILL)


def on_ranks(world_size: int, work: Callable[[Runtime], Any], folder: Path) -> list[Any]:
    """`work(runtime)` on each rank of a gloo group; the results in rank order (tensors and plain containers)."""
    folder.mkdir(parents=True, exist_ok=True)
    mp.spawn(_rank, args=(world_size, work, str(folder)), nprocs=world_size)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=True) for rank in range(world_size)]


def _rank(rank: int, world_size: int, work: Callable[[Runtime], Any], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    try:
        torch.save(work(Runtime.from_process_group("cpu")), Path(folder) / f"rank_{rank}.pt")
        dist.barrier()  # nobody closes its sockets while another still reads
    finally:
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # without C++ destructors: gloo's threads sometimes outlive their group, and abort the process there
