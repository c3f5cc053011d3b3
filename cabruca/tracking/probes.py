"""Where the numbers of `system/...` come from: psutil, and torch's view of NVML and Metal."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch

from cabruca.train.protocols import Metrics

_log = logging.getLogger("cabruca.tracking")

MB = 2**20
GB = 2**30

SHORTEST_S = 0.05
"""A rate over less time than this is noise and is left out."""


class ProcessProbe:
    """Memory and CPU time of this process."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        times = self._process.cpu_times()
        return time.monotonic(), times.user + times.system

    def read(self) -> Metrics:
        out = {"system/process_rss_mb": self._process.memory_info().rss / MB}
        now = self._now()
        seconds, busy = (b - a for a, b in zip(self._before, now, strict=True))
        if seconds >= SHORTEST_S:
            out["system/process_cpu_percent"] = 100 * busy / seconds
            self._before = now
        return out


class MemoryProbe:
    """Memory of the machine; what could be given back at once (caches) does not count as used."""

    def read(self) -> Metrics:
        return {"system/ram_percent": float(psutil.virtual_memory().percent)}


class CpuProbe:
    """All cores together. psutil's own `cpu_percent` keeps its last call per thread; two threads ask here."""

    def __init__(self) -> None:
        self._before = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        times = psutil.cpu_times()._asdict()
        # a guest's time is counted in the user's already
        total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        return total, total - times["idle"] - times.get("iowait", 0.0)

    def read(self) -> Metrics:
        now = self._now()
        total, busy = (b - a for a, b in zip(self._before, now, strict=True))
        if total < SHORTEST_S:
            return {}
        self._before = now
        return {"system/cpu_percent": min(max(100 * busy / total, 0.0), 100.0)}


class DiskProbe:
    """Room on the disk of `folder`; traffic of all disks, where the system counts it."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._before = self._now()

    @staticmethod
    def _now() -> tuple[float, int, int] | None:
        counted = psutil.disk_io_counters()
        return None if counted is None else (time.monotonic(), counted.read_bytes, counted.write_bytes)

    def read(self) -> Metrics:
        room = psutil.disk_usage(self._folder)
        out = {"system/disk_used_percent": float(room.percent), "system/disk_free_gb": room.free / GB}
        now = self._now()
        if now is None or self._before is None:
            return out
        seconds, read, written = (b - a for a, b in zip(self._before, now, strict=True))
        if seconds >= SHORTEST_S:
            out["system/disk_read_mb_per_s"] = read / MB / seconds
            out["system/disk_write_mb_per_s"] = written / MB / seconds
            self._before = now
        return out


class Cuda(Protocol):
    """What `torch.cuda` offers of it."""

    def mem_get_info(self, device: Any = None) -> tuple[int, int]: ...
    def utilization(self, device: Any = None) -> int: ...


class CudaProbe:
    """One NVIDIA GPU.

    Memory comes from the driver; utilisation from NVML, by way of `torch.cuda.utilization`, which knows how
    CUDA_VISIBLE_DEVICES renumbers the devices. Without `nvidia-ml-py`, and on a part of a GPU (MIG), there is memory
    alone, and that is said once.

    Args:
        cuda: `torch.cuda`, or what stands in for it.
    """

    def __init__(self, device: torch.device, cuda: Cuda = torch.cuda) -> None:
        self._device = device
        self._cuda = cuda
        self._has_utilisation = True

    def read(self) -> Metrics:
        free, total = self._cuda.mem_get_info(self._device)
        out = {"system/gpu_memory_mb": (total - free) / MB}
        if self._has_utilisation:
            try:
                out["system/gpu_percent"] = float(self._cuda.utilization(self._device))
            except Exception as error:  # pynvml's errors cannot be named where it is not installed
                self._has_utilisation = False
                _log.info("GPU utilisation is not measured (%s); pip install 'cabruca[gpu]' brings NVML", error)
        return out


class MpsProbe:
    """Memory that Metal has given to this process; Apple tells no utilisation."""

    def read(self) -> Metrics:
        return {"system/gpu_memory_mb": torch.mps.driver_allocated_memory() / MB}
