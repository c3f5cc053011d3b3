"""Which precision a device gives, autocast, and the gradient scaler on a CPU."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from line_task import LineTask, Points, line_config
from memory_reporter import MemoryReporter
from torch import nn

from cabruca.config.schema import TrainingConfig
from cabruca.errors import DeviceError
from cabruca.runtime import Runtime
from cabruca.train import learner, precision
from cabruca.train.loop import train
from cabruca.train.precision import Precision, resolve


@dataclass
class Machine:
    """A made-up machine."""

    bf16_on: tuple[str, ...] = ()
    autocast_on_mps: bool = False

    def cuda(self) -> bool:
        return True

    def mps(self) -> bool:
        return True

    def bf16(self, device: str) -> bool:
        return device in self.bf16_on

    def mps_autocast(self) -> bool:
        return self.autocast_on_mps


NEW = Machine(("cpu", "cuda"), autocast_on_mps=True)
OLD = Machine()


@pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled")
@pytest.mark.parametrize(
    ("asked", "device", "machine", "expected"),
    [
        ("auto", "cuda", NEW, "bf16"),
        ("auto", "cuda", OLD, "fp16"),
        ("auto", "cpu", NEW, "bf16"),
        ("auto", "cpu", OLD, "fp32"),
        ("auto", "mps", NEW, "fp16"),
        ("auto", "mps", OLD, "fp32"),
        ("fp16", "cuda", NEW, "fp16"),
        ("fp16", "cpu", OLD, "fp16"),
        ("fp16", "mps", OLD, "fp32"),
        ("bf16", "cuda", NEW, "bf16"),
        ("bf16", "cuda", OLD, "fp32"),
        ("bf16", "cpu", OLD, "fp32"),
    ],
)
def test_mixed_precision_is_the_best_the_device_has(
    asked: Any, device: str, machine: Machine, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    precision._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, "cabruca"):
        for _ in range(2):
            got = resolve(TrainingConfig(mixed_precision=True, precision=asked), device, machine)
    assert (got.name, got.dtype) == (expected, torch.float32)
    if device == "cpu":  # torch switches the scaler of a device off that is not really there
        assert got.scaler.is_enabled() == (expected == "fp16")
    assert len(caplog.records) == (expected == "fp32")  # said once


@pytest.mark.parametrize("asked", ["auto", "fp32"])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_without_mixed_precision_it_is_fp32(asked: Any, device: str) -> None:
    assert resolve(TrainingConfig(precision=asked), device, NEW).name == "fp32"


def test_fp64() -> None:
    assert resolve(TrainingConfig(precision="fp64"), "cpu", NEW).dtype == torch.float64
    with pytest.raises(DeviceError, match="fp64 does not exist on device 'mps'; use --device cpu"):
        resolve(TrainingConfig(precision="fp64"), "mps", NEW)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("fp64", torch.float64), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_forward_passes_run_in_the_precision(name: Any, dtype: torch.dtype) -> None:
    chosen = Precision(name, "cpu")
    layer = nn.Linear(2, 2).to(chosen.dtype)
    with chosen.autocast():
        assert layer(torch.ones(1, 2, dtype=chosen.dtype)).dtype == dtype


class Recording(LineTask):
    """Remembers in which format the network answered."""

    formats: set[torch.dtype] = set()  # noqa: RUF012 a test's notebook

    def losses(self, model: nn.Module, batch: Points) -> Any:
        self.formats.add(model(batch.x).dtype)
        return super().losses(model, batch)


def fp16(**training: Any) -> Any:
    return line_config(training={"mixed_precision": True, "precision": "fp16", "log_interval": 1, **training})


def test_fp16_skips_steps_that_overflow_and_its_scale_follows() -> None:
    task, reporter = Recording(), MemoryReporter()
    task.formats.clear()
    # an error of about 1 at a scale of 65536 overflows fp16's 65504 where a step has one picture
    result = train(fp16(num_epochs=6), task, runtime=Runtime.single(), reporter=reporter)
    assert task.formats == {torch.float16}
    skipped = [r.metrics["train/skipped_steps"] for r in reporter.records]
    assert 0 < sum(skipped) < 6
    assert reporter.state["scaler"]["scale"] == 65536.0 * 0.5 ** sum(skipped)
    assert reporter.state["optimizer"]["state"][0]["step"] == result.step - sum(skipped)
    assert result.best is not None
    assert result.best < 0.9


def test_the_weights_after_a_skipped_step_are_those_before_it() -> None:
    task, reporter = LineTask(samples=1), MemoryReporter(stop_at_step=1)
    train(fp16(), task, runtime=Runtime.single(), reporter=reporter)
    assert reporter.steps[0].metrics["train/skipped_steps"] == 1
    before = task.build_model().state_dict()
    assert all(torch.equal(reporter.state["model"][name], before[name]) for name in ("slope", "offset", "spare"))


def test_scaled_gradients_are_unscaled_before_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    norms, weights = [], []
    for name in ("fp32", "fp16"):
        monkeypatch.setattr(learner, "resolve", lambda *_, name=name: Precision(name, "cpu", init_scale=1024.0))
        config = line_config(optimizer={"type": "sgd"}, training={"gradient_clip": 0.1, "log_interval": 1})
        reporter = MemoryReporter(stop_at_step=1)
        train(config, LineTask(samples=4), runtime=Runtime.single(), reporter=reporter)
        norms.append(reporter.steps[0].metrics["train/grad_norm"])
        weights.append(torch.cat(list(reporter.state["model"].values())))
    assert norms[1] == pytest.approx(norms[0], rel=2e-3)
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-4)


def test_a_state_without_scale_leaves_ours() -> None:
    chosen = Precision("fp16", "cpu", init_scale=8.0)
    chosen.load_state_dict({})
    assert chosen.scaler.get_scale() == 8.0
    Precision("bf16", "cpu").load_state_dict(chosen.state_dict())
