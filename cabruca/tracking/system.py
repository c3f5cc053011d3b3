"""What the machine does while it trains: `system/...` in the same records as losses and metrics.

====================================  ===============================================================  ========
name                                  what                                                             kept
====================================  ===============================================================  ========
system/process_rss_mb                 memory of the training process (loader processes not included)   peak
system/process_cpu_percent            its CPU time, 100 = one core                                     mean
system/ram_percent                    memory of the machine that is in use                             peak
system/cpu_percent                    all cores of the machine together                                mean
system/disk_used_percent              of the disk that the run folder lies on                          mean
system/disk_free_gb                   of the same                                                      mean
system/disk_read_mb_per_s             of all disks of the machine                                      mean
system/disk_write_mb_per_s            of the same                                                      mean
system/gpu_memory_mb                  in use on the run's GPU, by whomever                             peak
system/gpu_percent                    share of time in which a kernel ran on it                        mean
====================================  ===============================================================  ========

The speed of training, `time/images_per_s`, stands beside them in each record. MB are 2^20 bytes, GB 2^30.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Protocol

import torch

from cabruca.config.schema import Config
from cabruca.tracking.probes import CpuProbe, CudaProbe, DiskProbe, MemoryProbe, MpsProbe, ProcessProbe
from cabruca.train.protocols import BaseCallback, Metrics, Record, RunInfo, TrainResult

_log = logging.getLogger("cabruca.tracking")

PEAKS = frozenset({"system/process_rss_mb", "system/ram_percent", "system/gpu_memory_mb"})
"""Of these the largest sample counts, of the others the mean: memory runs out at its peak."""

PATIENCE_S = 1.0
"""How long training waits for a probe that hangs."""


class Probe(Protocol):
    """Measures something; called from one thread, which may hang in it."""

    def read(self) -> Metrics:
        """What can be told now; a rate is that since the last call."""
        ...


class Window:
    """Samples between two records."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = {}

    def add(self, sample: Metrics) -> None:
        for name, value in sample.items():
            self._samples.setdefault(name, []).append(value)

    def take(self) -> Metrics:
        """Mean or peak of each name; the window is empty afterwards, as it is where nothing was sampled."""
        taken, self._samples = self._samples, {}
        return {name: max(v) if name in PEAKS else sum(v) / len(v) for name, v in taken.items()}


class SystemMetrics(BaseCallback):
    """Samples in a background thread and adds to the records that pass by.

    It must be the first of a run's callbacks: the loop hands one `Record` to all callbacks and then to the reporter,
    so what is added here once reaches history, progress and every tracker alike. A record inside an epoch gets what
    was sampled since the one before it, if anything was; that of an epoch always has numbers. A probe that raises is
    told once and not asked again.

    Args:
        probes: what is measured.
        interval_s: seconds between two samples.
    """

    def __init__(self, probes: Sequence[Probe], interval_s: float) -> None:
        self._probes = list(probes)
        self._interval_s = interval_s
        self._lock = threading.Lock()  # of the windows
        self._step, self._epoch = Window(), Window()
        self._asked: queue.SimpleQueue[Future[Metrics] | None] = queue.SimpleQueue()  # None: the end
        self._thread: threading.Thread | None = None

    def on_start(self, info: RunInfo) -> None:
        self._thread = threading.Thread(target=self._work, name="cabruca-system", daemon=True)
        self._thread.start()
        self._now()  # rates count from here on

    def on_step(self, record: Record) -> None:
        if record.metrics:
            with self._lock:
                record.metrics.update(self._step.take())

    def on_epoch(self, record: Record) -> None:
        with self._lock:
            found = self._epoch.take()
        record.metrics.update(found or self._now())

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        self._asked.put(None)
        if self._thread is not None:
            self._thread.join(PATIENCE_S)

    def _work(self) -> None:
        while True:
            try:
                reply = self._asked.get(timeout=self._interval_s)
            except queue.Empty:
                sample = self._read()
                with self._lock:
                    self._step.add(sample)
                    self._epoch.add(sample)
                continue
            if reply is None:
                return
            reply.set_result(self._read())

    def _now(self) -> Metrics:
        """A sample of now, taken in the other thread; empty where a probe hangs: training does not wait for it."""
        reply: Future[Metrics] = Future()
        self._asked.put(reply)
        try:
            return reply.result(PATIENCE_S)
        except TimeoutError:
            return {}

    def _read(self) -> Metrics:
        out: Metrics = {}
        for probe in list(self._probes):
            try:
                out |= probe.read()
            except Exception as error:
                self._probes.remove(probe)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                _log.warning("%s is not measured any more in this run (%s)", type(probe).__name__, reason)
        return out


def system_metrics(config: Config, device: torch.device, folder: Path) -> list[BaseCallback]:
    """The callback of a run, to be put in front of all others; none where `tracking.system_metrics_s` is 0.

    Args:
        device: where the run computes; folder: the run's, whose disk is watched.
    """
    if config.tracking.system_metrics_s == 0:
        return []
    probes: list[Probe] = [ProcessProbe(), MemoryProbe(), CpuProbe(), DiskProbe(folder)]
    if device.type == "cuda":
        probes.append(CudaProbe(device))
    elif device.type == "mps":
        probes.append(MpsProbe())
    return [SystemMetrics(probes, config.tracking.system_metrics_s)]
