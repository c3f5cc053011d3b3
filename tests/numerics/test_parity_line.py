"""The train function does what 15 lines by hand do, bitwise; clipping against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter

from cabruca.runtime import Runtime
from cabruca.train.batching import epoch_order
from cabruca.train.loop import train

EPOCHS, LR, ETA_MIN, CLIP = 6, 0.05, 1e-3, 0.8


def by_hand(samples: int, micro: int, accumulation: int) -> dict[str, torch.Tensor]:
    """Accumulation, the last incomplete step weighted right, clipping, cosine by epochs."""
    task = LineTask(samples=samples)
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS, eta_min=ETA_MIN)
    for epoch in range(EPOCHS):
        order = epoch_order(0, epoch, samples)
        for start in range(0, samples, micro * accumulation):
            pictures = order[start : start + micro * accumulation]
            optimizer.zero_grad()
            cuts = [pictures[i : i + micro] for i in range(0, len(pictures), micro)]
            for batch in task.train_batches(epoch, cuts, Runtime.single()):
                (((model(batch.x) - batch.y) ** 2).sum() / len(pictures)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
        scheduler.step()
    return dict(model.state_dict())


@pytest.mark.parametrize(("samples", "micro", "accumulation"), [(13, 2, 3), (12, 4, 1), (5, 8, 2), (1, 1, 1)])
def test_the_loop_is_the_loop_by_hand(samples: int, micro: int, accumulation: int) -> None:
    config = line_config(
        optimizer={"lr": LR, "weight_decay": 0.01},
        scheduler={"type": "cosine", "eta_min": ETA_MIN},
        data={"batch_size": micro},
        training={"num_epochs": EPOCHS, "gradient_clip": CLIP, "gradient_accumulation_steps": accumulation},
    )
    reporter = MemoryReporter()
    train(config, LineTask(samples=samples), runtime=Runtime.single(), reporter=reporter)
    expected = by_hand(samples, micro, accumulation)
    assert all(torch.equal(reporter.state["model"][name], expected[name]) for name in expected)


@pytest.mark.parametrize("clip", [0.5, 1e6, 0.0])
def test_clipping_by_its_formula(clip: float) -> None:
    """One step of plain gradient descent: w - lr * g * min(1, clip / |g|), g from calculus."""
    task = LineTask(samples=4)
    batch = next(iter(task.train_batches(0, [epoch_order(0, 0, 4)], Runtime.single())))
    residual = (0.1 * batch.x + 0.2 - batch.y).double()
    slope, offset = float((2 * residual * batch.x).mean()), float((2 * residual).mean())
    norm = math.hypot(slope, offset)
    scale = min(1.0, clip / norm) if clip else 1.0
    config = line_config(
        optimizer={"type": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
        training={"gradient_clip": clip, "num_epochs": 1, "log_interval": 1},
    )
    reporter = MemoryReporter()
    train(config, task, runtime=Runtime.single(), reporter=reporter)
    model = reporter.state["model"]
    assert float(model["slope"]) == pytest.approx(0.1 - 0.1 * slope * scale, rel=1e-5)
    assert float(model["offset"]) == pytest.approx(0.2 - 0.1 * offset * scale, rel=1e-5)
    assert reporter.steps[0].metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-5)
