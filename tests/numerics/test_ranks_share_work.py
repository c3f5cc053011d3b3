"""Fault 12: work over several devices was described, and nothing implemented it.

What there is: one process a device, a process group between them, and the loop that divides each forward pass among
them. Here the group is gloo on the CPU; the collectives are the same that NCCL serves on several GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter
from processes import on_ranks

from cabruca.runtime import Runtime
from cabruca.train import step
from cabruca.train.loop import train


def learnt(runtime: Runtime) -> dict[str, Any]:
    """Two epochs of 16 pictures, 8 a forward pass over all ranks; the weights and what this rank looked at."""
    config = line_config(data={"batch_size": 8}, training={"precision": "fp64", "num_epochs": 2})
    task, reporter = LineTask(samples=16), MemoryReporter()
    train(config, task, runtime=runtime, reporter=reporter)
    seen = [sorted(index for batch in batches for index in batch) for _, batches in task.seen]
    return {"model": reporter.state["model"], "seen": seen}


def all_ways(runtime: Runtime) -> dict[str, Any]:
    """Ours, and the fault put back in two ways (one start of processes, each imports torch)."""
    ours = learnt(runtime)
    every_rank_alone = learnt(Runtime.single())
    real, step.sum_gradients = step.sum_gradients, lambda *_: None
    gradients_stay = learnt(runtime)
    step.sum_gradients = real
    return {"ours": ours, "every rank alone": every_rank_alone, "gradients stay": gradients_stay}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    return on_ranks(2, all_ways, folder)


def shared_work(ranks: list[dict[str, Any]], way: str) -> None:
    """The ranks divide the pictures among them, and learn together what one process learns."""
    first, second = (rank[way] for rank in ranks)
    for one, other in zip(first["seen"], second["seen"], strict=True):
        assert sorted(one + other) == list(range(16))
        assert len(one) == len(other) == 8
    alone = learnt(Runtime.single())["model"]
    for rank in (first, second):
        torch.testing.assert_close(rank["model"], alone, rtol=0, atol=1e-12)


def test_fault_12_ranks_share_the_work(ranks: list[dict[str, Any]]) -> None:
    shared_work(ranks, "ours")


@pytest.mark.parametrize("way", ["every rank alone", "gradients stay"])
def test_fault_12_put_back_is_seen(ranks: list[dict[str, Any]], way: str) -> None:
    with pytest.raises(AssertionError):
        shared_work(ranks, way)
