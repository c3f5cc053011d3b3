"""Stages, unfreezing, the average and a finer cut give the same on two ranks as alone (float64, 1e-12)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from line_task import LineTask, Points, line_config
from memory_reporter import MemoryReporter
from processes import on_ranks

from cabruca.errors import OutOfMemory
from cabruca.runtime import Runtime
from cabruca.train.loop import train


class Tight(LineTask):
    """Rank `tight` has memory for `room` pictures; the others for all."""

    def __init__(self, runtime: Runtime, tight: int, room: int) -> None:
        super().__init__(samples=13)
        self.room = room if runtime.rank == tight else 99

    def losses(self, model: Any, batch: Points) -> Any:
        if len(batch.x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried")
        return super().losses(model, batch)


def run(runtime: Runtime, batch_size: int, **task: int) -> dict[str, Any]:
    config = line_config(
        data={"batch_size": batch_size},
        scheduler={"type": "onecycle"},
        training={
            "precision": "fp64",
            "gradient_accumulation_steps": 8 // batch_size,
            "stages": [{"tile_size": 96, "epochs": 2}, {"tile_size": 128, "epochs": 2, "lr": 0.01}],
            "unfreeze": [{"epoch": 1, "part": "backbone"}],
            "ema_decay": 0.9,
            "on_oom": "shrink",
            "gradient_clip": 0.5,
        },
    )
    reporter = MemoryReporter()
    train(config, Tight(runtime, **task), runtime=runtime, reporter=reporter)
    state = reporter.state
    cut = [r.metrics["memory/batch_size"] for r in reporter.records]
    return {"model": state["model"], "trained": state["trained"], "cut": cut}


def on_two(runtime: Runtime) -> dict[str, Any]:
    out = {"whole": run(runtime, 4, tight=9, room=9), "shrunk": run(runtime, 8, tight=1, room=2)}
    try:
        run(runtime, 8, tight=1, room=0)
    except OutOfMemory as error:
        out["said"] = str(error)
    return out


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(2, on_two, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return run(Runtime.single(), 8, tight=9, room=9)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("cut", ["whole", "shrunk"])
def test_two_ranks_learn_what_one_learns(
    ranks: list[dict[str, Any]], alone: dict[str, Any], rank: int, cut: str
) -> None:
    for key in ("model", "trained"):
        torch.testing.assert_close(ranks[rank][cut][key], alone[key], atol=1e-12, rtol=0.0)


def test_one_rank_that_runs_short_shrinks_all(ranks: list[dict[str, Any]]) -> None:
    assert [rank["shrunk"]["cut"] for rank in ranks] == [[4.0] * 4] * 2


def test_all_ranks_end_with_advice_where_no_cut_fits(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert "(worker 1: CUDA out of memory): batch_size 2 x 96 px tiles does not fit" in rank["said"]
