"""A run's peak of GPU memory is its own; with a made-up GPU."""

from __future__ import annotations

import pytest
import torch
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter

from cabruca.runtime import Runtime
from cabruca.train import device, loop


def test_the_peak_is_forgotten_on_cuda_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    for name in ("cpu", "mps", "cuda:1"):
        device.forget_peak(torch.device(name))
    assert forgotten == [torch.device("cuda:1")]


def test_every_run_forgets_the_peak_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Watched(LineTask):
        def build_model(self) -> torch.nn.Module:
            told.append("network")
            return super().build_model()

    monkeypatch.setattr(loop, "forget_peak", lambda where: told.append(str(where)))
    config = line_config(training={"num_epochs": 1})
    for _ in range(2):
        loop.train(config, Watched(), runtime=Runtime.single(), reporter=MemoryReporter())
    assert told == ["cpu", "network"] * 2
