"""Which device and format a GPU is given, and fp16's scaler: it skips, follows, and comes back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter
from on_device import line_on
from torch import nn

from cabruca.config.schema import TrainingConfig
from cabruca.doctor import operators
from cabruca.runtime import Runtime, choose_device
from cabruca.train.loop import train
from cabruca.train.precision import Precision, resolve

FP16: dict[str, Any] = {"mixed_precision": True, "precision": "fp16", "log_interval": 1, "num_epochs": 6}


def test_auto_is_cuda_and_mixed_precision_is_bf16(cuda: torch.device) -> None:
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    chosen = resolve(TrainingConfig(mixed_precision=True), "cuda")
    if torch.cuda.get_device_capability()[0] >= 8:
        assert chosen.name == "bf16"
    assert not chosen.scaler.is_enabled()
    assert resolve(TrainingConfig(mixed_precision=True, precision="fp16"), "cuda").scaler.is_enabled()
    assert resolve(TrainingConfig(), "cuda").name == "fp32"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("fp64", torch.float64), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_forward_passes_run_in_the_precision(device: torch.device, name: Any, dtype: torch.dtype) -> None:
    chosen = Precision(name, device.type)
    layer = nn.Linear(2, 2).to(device, chosen.dtype)
    with chosen.autocast():
        assert layer(torch.ones(1, 2, dtype=chosen.dtype, device=device)).dtype == dtype


def test_fp16_skips_steps_that_overflow_and_its_scale_follows(device: torch.device) -> None:
    """An error of about 1 at a scale of 65536 overflows fp16's 65504 where a step has one picture."""
    reporter = MemoryReporter()
    result = train(line_config(training=FP16), LineTask(), runtime=Runtime.single(device), reporter=reporter)
    skipped = sum(record.metrics["train/skipped_steps"] for record in reporter.records)
    assert 0 < skipped < 6
    assert reporter.state["scaler"]["scale"] == 65536.0 * 0.5**skipped
    assert reporter.state["optimizer"]["state"][0]["step"] == result.step - skipped
    assert result.best is not None
    assert result.best < 0.9, "the steps that were taken taught nothing"


def test_the_weights_after_a_skipped_step_are_those_before_it(device: torch.device) -> None:
    task, reporter = LineTask(samples=1), MemoryReporter(stop_at_step=1)
    train(line_config(training=FP16), task, runtime=Runtime.single(device), reporter=reporter)
    assert reporter.steps[0].metrics["train/skipped_steps"] == 1
    before = task.build_model().state_dict()
    assert all(torch.equal(reporter.state["model"][name], before[name]) for name in ("slope", "offset", "spare"))


def test_a_resumed_run_goes_on_with_the_scale(device: torch.device) -> None:
    whole = line_on(device, training=FP16)
    first = line_on(device, MemoryReporter(stop_at_step=6), training=FP16)
    scale = first.state["scaler"]["scale"]
    assert scale < 65536.0
    second = line_on(device, MemoryReporter(resume_from=first.state), training=FP16)
    assert second.saves[0][1]["scaler"]["scale"] <= scale, "the scale began anew"
    assert second.state["scaler"] == whole.state["scaler"]
    assert all(torch.equal(second.state["model"][n], w) for n, w in whole.state["model"].items())


@pytest.mark.parametrize(
    "probe",
    [
        operators.convolution,
        operators.depthwise_bf16,
        operators.group_norm,
        operators.upsampling,
        operators.transposed_convolution,
        operators.nms,
        operators.roi,
        operators.optimizer_step,
    ],
)
def test_the_doctor_finds_every_operator_right(device: torch.device, probe: Any) -> None:
    assert probe(device.type).level == "ok"
