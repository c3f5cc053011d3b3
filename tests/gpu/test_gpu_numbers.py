"""The GPU learns what the CPU learns: the same draws, the same losses, whatever the cut of the work."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from memory_reporter import MemoryReporter
from on_device import CPU, STEPS, floats, furthest, losses, network_on

FP64 = {**STEPS, "training.precision": "fp64", "data.windows_per_epoch": 12}


@pytest.fixture(scope="module")
def in_fp64(device: torch.device, farm: Path) -> MemoryReporter:
    """Three optimizer steps of four pictures in one forward pass each."""
    return network_on(device, farm, {**FP64, "data.batch_size": 4})


@pytest.fixture(scope="module")
def on_cpu(farm: Path) -> list[float]:
    """The losses of four steps in fp32."""
    return losses(network_on(CPU, farm, STEPS))


def told(reporter: MemoryReporter) -> dict[str, float]:
    """What an epoch's record says of learning."""
    found = reporter.records[-1].metrics
    return {k: v for k, v in found.items() if k.startswith(("train/", "val/")) and not math.isnan(v)}


def assert_equal(ours: MemoryReporter, theirs: MemoryReporter, rel: float) -> None:
    expected = floats(theirs.state)
    assert next(iter(expected.values())).dtype == torch.float64
    torch.testing.assert_close(floats(ours.state), expected, rtol=rel, atol=rel)
    assert told(ours).keys() == told(theirs).keys()
    for name, value in told(theirs).items():
        assert told(ours)[name] == pytest.approx(value, rel=100 * rel, abs=100 * rel), name


def test_in_fp64_the_weights_are_those_of_the_cpu(farm: Path, in_fp64: MemoryReporter) -> None:
    assert_equal(in_fp64, network_on(CPU, farm, {**FP64, "data.batch_size": 4}), 1e-7)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(2, 2), (1, 4)])
def test_accumulation_equals_the_large_batch(
    device: torch.device, farm: Path, in_fp64: MemoryReporter, batch_size: int, accumulation: int
) -> None:
    cut = {"data.batch_size": batch_size, "training.gradient_accumulation_steps": accumulation}
    assert_equal(network_on(device, farm, {**FP64, **cut}), in_fp64, 1e-8)


@pytest.mark.usefixtures("exact_fp32")
def test_in_fp32_the_losses_follow_the_cpu(device: torch.device, farm: Path, on_cpu: list[float]) -> None:
    """The first pass agrees in rounding; later a last bit may change a proposal's rank, and with it a sampled box."""
    ours = losses(network_on(device, farm, STEPS))
    print(f"fp32: first step off by {furthest(ours[:1], on_cpu[:1]):.2g}, four steps by {furthest(ours, on_cpu):.2g}")
    assert furthest(ours[:1], on_cpu[:1]) < 1e-3
    assert furthest(ours, on_cpu) < 0.05


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("fp32 with TF32", {}),
        ("bf16", {"training.mixed_precision": True, "training.precision": "bf16"}),
        ("without channels_last", {"training.channels_last": False}),
    ],
)
def test_other_formats_are_near(
    device: torch.device, farm: Path, on_cpu: list[float], name: str, changes: dict[str, Any]
) -> None:
    reporter = network_on(device, farm, {**STEPS, **changes})
    ours = losses(reporter)
    print(f"{name}: first step off by {furthest(ours[:1], on_cpu[:1]):.2g}, four steps by {furthest(ours, on_cpu):.2g}")
    assert reporter.records[-1].metrics["train/skipped_steps"] == 0
    assert furthest(ours[:1], on_cpu[:1]) < 0.05
    assert furthest(ours, on_cpu) < 0.15


def test_fp16_learns_once_its_scale_fits(device: torch.device, farm: Path) -> None:
    """At the first scale, 65536, gradients of a fresh network overflow: some steps are skipped, and none after them."""
    fp16 = {"training.mixed_precision": True, "training.precision": "fp16", "data.windows_per_epoch": 16}
    reporter = network_on(device, farm, {**STEPS, **fp16})
    taken = [r.metrics["train/total_loss"] for r in reporter.steps if not r.metrics["train/skipped_steps"]]
    skipped = int(reporter.records[-1].metrics["train/skipped_steps"])
    print(f"fp16: {skipped} of 8 steps skipped, losses {[round(loss, 2) for loss in taken]}")
    assert skipped <= 4
    assert reporter.state["scaler"]["scale"] == 65536.0 * 0.5**skipped
    assert len(taken) == 8 - skipped
    assert taken[-1] < taken[0]
    assert all(bool(torch.isfinite(w).all()) for w in floats(reporter.state).values())


def test_loader_processes_beside_a_gpu_and_pinned_memory_change_nothing(device: torch.device, farm: Path) -> None:
    """Processes are forked after the first run has used the device; the first loss is of the same weights."""
    inline = losses(network_on(device, farm, STEPS, loaders=0))
    for loaders, pinned in ((2, True), (2, False), (0, False)):
        pin = pinned and device.type == "cuda"
        beside = losses(network_on(device, farm, {**STEPS, "data.pin_memory": pin}, loaders=loaders))
        assert furthest(beside[:1], inline[:1]) < 1e-4
        assert furthest(beside, inline) < 0.05
