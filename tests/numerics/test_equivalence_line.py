"""1 x 8 == 4 x 2 == 2 ranks x 2 x 2: the result does not depend on how the work was cut (float64, 1e-12)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter
from processes import on_ranks

from cabruca.runtime import Runtime
from cabruca.train.loop import train
from cabruca.train.protocols import State

EXACT = {"atol": 1e-12, "rtol": 0.0}


def run(
    runtime: Runtime, batch_size: int, accumulation: int, *, bad: frozenset[int] = frozenset(), clip: float = 0.5
) -> State:
    """Three epochs of 13 pictures, 8 a step, the last of 5; what was learnt and said."""
    config = line_config(
        data={"batch_size": batch_size},
        scheduler={"type": "onecycle"},
        training={
            "precision": "fp64",
            "gradient_accumulation_steps": accumulation,
            "gradient_clip": clip,
            "num_epochs": 3,
            "log_interval": 1,
        },
    )
    reporter = MemoryReporter()
    train(config, LineTask(samples=13, bad=bad), runtime=runtime, reporter=reporter)
    told = {k: v for k, v in reporter.records[-1].metrics.items() if k.startswith(("train/", "val/", "lr/"))}
    steps = [record.metrics.get("train/total_loss", -1.0) for record in reporter.steps]
    return {"model": reporter.state["model"], "told": told, "steps": steps, "state": reporter.state}


def several_cuts(runtime: Runtime) -> dict[str, Any]:
    """All that two ranks do in one start of processes (each start imports torch)."""
    out = {
        "2x2x2": run(runtime, 4, 2),
        "2x1x4": run(runtime, 8, 1),
        "skipping": run(runtime, 4, 2, bad=frozenset({4})),
    }
    told = []

    class Telling(LineTask):
        def losses(self, model: Any, batch: Any) -> Any:
            losses = super().losses(model, batch)
            told.append(model.met_large.tolist())
            return losses

    fact = MemoryReporter(stop_at_step=2)
    train(line_config(data={"batch_size": 2}), Telling(), runtime=runtime, reporter=fact)
    first = MemoryReporter(stop_at_step=3)  # in the middle of the second epoch
    config = line_config(data={"batch_size": 4}, training={"precision": "fp64"})
    train(config, LineTask(samples=13, dropout=0.5), runtime=runtime, reporter=first)
    whole, second = MemoryReporter(), MemoryReporter(resume_from=first.state)
    train(config, LineTask(samples=13, dropout=0.5), runtime=runtime, reporter=second)
    train(config, LineTask(samples=13, dropout=0.5), runtime=runtime, reporter=whole)
    only_one_is_asked = MemoryReporter(stop_at_step=2 if runtime.rank == 1 else None)
    result = train(config, LineTask(), runtime=runtime, reporter=only_one_is_asked)
    return {
        **out,
        "fact": fact.state["model"]["met_large"].tolist(),
        "noted alone": told[-1],
        "resumed": second.state["model"],
        "unbroken": whole.state["model"],
        "resumed_loss": second.records[0].metrics["train/total_loss"],
        "unbroken_loss": whole.records[0].metrics["train/total_loss"],
        "stopped": [result.state, result.step, len(only_one_is_asked.saves)],
        "generators_differ": not torch.equal(*[rng["torch"] for rng in whole.state["rng"]]),
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(2, several_cuts, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def reference() -> State:
    return run(Runtime.single(), batch_size=8, accumulation=1)


def assert_equivalent(ours: State, reference: State) -> None:
    assert next(iter(ours["model"].values())).dtype == torch.float64
    torch.testing.assert_close(ours["model"], reference["model"], **EXACT)
    torch.testing.assert_close(ours["told"], reference["told"], **EXACT)
    torch.testing.assert_close(ours["steps"], reference["steps"], **EXACT)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 2), (2, 4), (1, 8)])
def test_accumulation(reference: State, batch_size: int, accumulation: int) -> None:
    assert_equivalent(run(Runtime.single(), batch_size, accumulation), reference)


@pytest.mark.parametrize("cut", ["2x2x2", "2x1x4"])
@pytest.mark.parametrize("rank", [0, 1])
def test_ranks(ranks: list[dict[str, Any]], reference: State, cut: str, rank: int) -> None:
    """The last micro-batch of an epoch has one picture: the share of rank 1 is empty."""
    assert_equivalent(ranks[rank][cut], reference)


def test_all_ranks_skip_a_step_that_is_not_finite_on_one(ranks: list[dict[str, Any]]) -> None:
    alone = run(Runtime.single(), 8, 1, bad=frozenset({4}))
    assert alone["told"]["train/skipped_steps"] == 1
    for rank in ranks:
        torch.testing.assert_close(rank["skipping"]["model"], alone["model"], **EXACT)
        assert rank["skipping"]["told"]["train/skipped_steps"] == 1


def test_a_part_without_gradient_is_left_alone_on_ranks_too(ranks: list[dict[str, Any]]) -> None:
    """AdamW decays a parameter with a zero gradient and leaves one with none: summing must keep the difference."""
    assert ranks[0]["2x2x2"]["model"]["spare"].item() == 1.0


def test_ranks_resume_from_the_middle_of_an_epoch(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert all(torch.equal(rank["resumed"][name], rank["unbroken"][name]) for name in rank["resumed"])
        assert rank["resumed_loss"] == rank["unbroken_loss"]
        assert rank["generators_differ"]


def test_what_one_rank_has_met_all_ranks_know(ranks: list[dict[str, Any]], reference: State) -> None:
    assert [rank["fact"] for rank in ranks] == [[True, False]] * 2
    assert len({tuple(rank["noted alone"]) for rank in ranks}) == 2, "the ranks did not meet the same"


def test_one_rank_that_is_asked_to_stop_stops_all_after_saving(ranks: list[dict[str, Any]]) -> None:
    assert [rank["stopped"] for rank in ranks] == [["interrupted", 2, 1]] * 2
