"""System metrics: what the probes say, how samples become numbers, and that every record keeper gets the same."""

from __future__ import annotations

import math
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from run_helpers import LineTask, line_config, rows
from tracker_reading import tensorboard_points

from cabruca import run as run_module
from cabruca.run import run_training
from cabruca.tracking.probes import CpuProbe, CudaProbe, DiskProbe, MemoryProbe, ProcessProbe
from cabruca.tracking.system import SystemMetrics, Window, system_metrics
from cabruca.train.protocols import BaseCallback, Metrics, Record, RunInfo, TrainResult

INFO = RunInfo(2, 3, 4, 4, "cpu", "fp32", 10, 0, 0, {})
RESULT = TrainResult("finished", 1, 1, None, None, {}, "done")


class Numbered:
    """Says 1, 2, 3 ... under a name that is averaged and one whose peak counts."""

    def __init__(self) -> None:
        self.count = 0

    def read(self) -> Metrics:
        self.count += 1
        return {"system/cpu_percent": float(self.count), "system/process_rss_mb": float(self.count)}


def _sampled(seen: SystemMetrics, count: int) -> None:
    """Samples as the thread would take them, without its clock."""
    for _ in range(count):
        sample = seen._read()
        seen._step.add(sample)
        seen._epoch.add(sample)


def test_a_window_gives_means_and_the_peak_of_memory() -> None:
    window = Window()
    for value in (1.0, 4.0, 1.0):
        window.add({"system/cpu_percent": value, "system/gpu_memory_mb": value})
    assert window.take() == {"system/cpu_percent": 2.0, "system/gpu_memory_mb": 4.0}
    assert window.take() == {}


def test_step_records_get_what_was_sampled_since_and_epoch_records_all_of_it() -> None:
    probe = Numbered()
    seen = SystemMetrics([probe], interval_s=3600)
    seen.on_start(INFO)
    probe.count = 0  # the first reading is of no record
    _sampled(seen, 2)
    first, empty, second = (Record(0, n, dict(m)) for n, m in ((1, {"a": 0.0}), (2, {}), (3, {"a": 0.0})))
    seen.on_step(first)
    assert first.metrics == {"a": 0.0, "system/cpu_percent": 1.5, "system/process_rss_mb": 2.0}
    _sampled(seen, 2)
    seen.on_step(empty)
    assert empty.metrics == {}  # a step that is not logged stays so
    seen.on_step(second)
    assert second.metrics["system/cpu_percent"] == 3.5
    epoch = Record(1, 3, {})
    seen.on_epoch(epoch)
    assert epoch.metrics == {"system/cpu_percent": 2.5, "system/process_rss_mb": 4.0}
    short = Record(2, 6, {})
    seen.on_epoch(short)  # nothing was sampled in this epoch: it is measured at its end
    assert short.metrics == {"system/cpu_percent": 5.0, "system/process_rss_mb": 5.0}
    seen.on_end(RESULT, None)


def test_the_thread_samples_at_its_interval_and_ends() -> None:
    probe = Numbered()
    seen = SystemMetrics([probe], interval_s=0.02)
    seen.on_start(INFO)
    time.sleep(0.4)
    seen.on_end(RESULT, None)
    count = probe.count
    assert 5 <= count <= 21
    time.sleep(0.1)
    assert probe.count == count


def test_a_probe_that_raises_is_told_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def read(self) -> Metrics:
            raise OSError("no such counter\nlong story")

    seen = SystemMetrics([Broken(), Numbered()], interval_s=3600)
    _sampled(seen, 3)
    (warning,) = [r.getMessage() for r in caplog.records]
    assert warning == "Broken is not measured any more in this run (no such counter)"
    assert seen._epoch.take()["system/cpu_percent"] == 2.0


def test_a_probe_that_hangs_holds_training_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabruca.tracking.system.PATIENCE_S", 0.1)
    release, hangs = threading.Event(), threading.Event()

    class Hanging:
        def read(self) -> Metrics:
            if threading.current_thread().name == "cabruca-system":
                hangs.set()
                release.wait(20)
            return {}

    seen = SystemMetrics([Hanging()], interval_s=0.01)
    seen.on_start(INFO)
    assert hangs.wait(5)
    began = time.monotonic()
    seen.on_step(Record(0, 1, {"a": 0.0}))
    seen.on_epoch(Record(1, 1, {}))
    seen.on_end(RESULT, None)
    assert time.monotonic() - began < 2
    release.set()


def test_a_probe_that_hangs_at_once_does_not_hold_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabruca.tracking.system.PATIENCE_S", 0.1)
    release = threading.Event()

    class Hanging:
        def read(self) -> Metrics:
            release.wait(20)
            return {"system/cpu_percent": 1.0}

    seen = SystemMetrics([Hanging()], interval_s=3600)
    began = time.monotonic()
    seen.on_start(INFO)
    record = Record(1, 1, {})
    seen.on_epoch(record)
    seen.on_end(RESULT, None)
    assert time.monotonic() - began < 2
    assert record.metrics == {}
    release.set()


def test_the_probes_agree_with_psutil(tmp_path: Path) -> None:
    process, cpu, disk = ProcessProbe(), CpuProbe(), DiskProbe(tmp_path)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:  # one core is busy
        math.sqrt(2.0)
    own = process.read()
    assert own["system/process_rss_mb"] == pytest.approx(psutil.Process().memory_info().rss / 2**20, rel=0.05)
    assert 20 < own["system/process_cpu_percent"] < 130
    assert 0 < cpu.read()["system/cpu_percent"] <= 100
    assert 0 < MemoryProbe().read()["system/ram_percent"] <= 100
    room = disk.read()
    assert room["system/disk_free_gb"] == pytest.approx(psutil.disk_usage(str(tmp_path)).free / 2**30, rel=0.05)
    assert process.read().keys() == {"system/process_rss_mb"}  # a rate over no time is left out


def test_disk_traffic_is_a_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Counted = namedtuple("Counted", "read_bytes write_bytes")
    counted: Iterator[Counted] = iter([Counted(0, 2**20), Counted(4 * 2**20, 3 * 2**20)])
    clock = iter([10.0, 12.0])
    monkeypatch.setattr("cabruca.tracking.probes.psutil.disk_io_counters", lambda: next(counted))
    monkeypatch.setattr("cabruca.tracking.probes.time.monotonic", lambda: next(clock))
    found = DiskProbe(tmp_path).read()
    assert (found["system/disk_read_mb_per_s"], found["system/disk_write_mb_per_s"]) == (2.0, 1.0)


def test_a_system_that_counts_no_traffic_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabruca.tracking.probes.psutil.disk_io_counters", lambda: None)
    assert DiskProbe(tmp_path).read().keys() == {"system/disk_used_percent", "system/disk_free_gb"}


class FakeCuda:
    """A GPU of 8 GB, 3 of them in use; `nvml` False: as where nvidia-ml-py is not installed."""

    def __init__(self, *, nvml: bool) -> None:
        self.nvml, self.asked = nvml, 0

    def mem_get_info(self, device: Any = None) -> tuple[int, int]:
        return 5 * 2**30, 8 * 2**30

    def utilization(self, device: Any = None) -> int:
        self.asked += 1
        if not self.nvml:
            raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")
        return 73


def test_a_gpu_has_memory_and_utilisation() -> None:
    probe = CudaProbe(torch.device("cuda:1"), FakeCuda(nvml=True))
    assert probe.read() == {"system/gpu_memory_mb": 3072.0, "system/gpu_percent": 73.0}


def test_without_nvml_a_gpu_has_memory_alone_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cabruca")
    cuda = FakeCuda(nvml=False)
    probe = CudaProbe(torch.device("cuda"), cuda)
    assert [probe.read() for _ in range(3)] == [{"system/gpu_memory_mb": 3072.0}] * 3
    assert cuda.asked == 1
    (said,) = [r.getMessage() for r in caplog.records]
    assert "cabruca[gpu]" in said


def test_zero_seconds_switch_it_off(tmp_path: Path) -> None:
    off = line_config(tmp_path, tracking={"system_metrics_s": 0})
    assert system_metrics(off, torch.device("cpu"), tmp_path) == []


def check_everywhere(tmp_path: Path, name: str) -> None:
    """History, epoch rows and TensorBoard hold the same system metrics."""

    class Slow(BaseCallback):
        def on_step(self, record: Record) -> None:
            time.sleep(0.01)

    config = line_config(tmp_path, experiment_name=name, tracking={"system_metrics_s": 0.01})
    result = run_training(config, task_factory=LineTask, quiet=True, callbacks=[Slow()])
    written = rows(tmp_path / name / "metrics.jsonl")
    epochs = [r for r in written if "val/mAP_50" in r]
    steps = [r for r in written if "val/mAP_50" not in r and "system/process_rss_mb" in r]
    points = tensorboard_points(tmp_path / name / "tensorboard")
    assert steps, "rows inside an epoch have them too"
    for metric in ("system/process_rss_mb", "system/ram_percent", "system/disk_free_gb"):
        assert all(metric in r for r in epochs)
        expected = sorted((r["step"], r[metric]) for r in [*epochs, *steps] if metric in r)
        found = sorted(points[metric])
        assert [s for s, _ in found] == [s for s, _ in expected]
        assert [v for _, v in found] == pytest.approx([v for _, v in expected], rel=1e-5)
        assert result.metrics[metric] == epochs[-1][metric]
    assert all(r["time/images_per_s"] > 0 for r in epochs)


def test_history_and_trackers_hold_the_same_system_metrics(tmp_path: Path) -> None:
    check_everywhere(tmp_path, "a")


def test_a_place_behind_the_trackers_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why it has to be the first callback: the check above, red."""
    real = run_module.train

    def late(*args: Any, callbacks: Any, **more: Any) -> Any:
        return real(*args, callbacks=[*callbacks[1:], callbacks[0]], **more)

    monkeypatch.setattr(run_module, "train", late)
    with pytest.raises((AssertionError, KeyError)):
        check_everywhere(tmp_path, "a")
