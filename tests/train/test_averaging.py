"""The moving average of the weights: its formula, what is validated and kept, what a resumed run goes on with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from line_run import go
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter
from resuming import assert_stops_change_nothing
from torch import Tensor, nn

from cabruca.train.protocols import Validation


class Noting(LineTask):
    """Writes down the weights before each step, and those that are validated."""

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.trained: list[dict[str, Tensor]] = []
        self.validated: list[dict[str, Tensor]] = []

    def losses(self, model: nn.Module, batch: Any) -> Any:
        self.trained.append(copied(model))
        return super().losses(model, batch)

    def validate(self, model: nn.Module, *args: Any, **kwargs: Any) -> Validation:
        self.validated.append(copied(model))
        return super().validate(model, *args, **kwargs)


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def averaged(weights: list[Tensor], decay: float) -> Tensor:
    """Of the weights before the first step and after each."""
    out = weights[0]
    for n, value in enumerate(weights[1:]):
        d = min(decay, (1 + n) / (10 + n))
        out = d * out + (1 - d) * value
    return out


@pytest.mark.parametrize("decay", [0.3, 0.9999])
def test_the_average_is_its_formula_and_is_what_is_validated_and_kept(decay: float) -> None:
    task = Noting()
    _, reporter = go(task, training={"ema_decay": decay, "precision": "fp64"})
    after = [weights["slope"] for weights in task.trained] + [reporter.state["trained"]["slope"]]
    for epoch in range(1, 5):
        expected = averaged(after[: 4 * epoch + 1], decay)
        torch.testing.assert_close(task.validated[epoch - 1]["slope"], expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(reporter.saves[epoch - 1][1]["model"]["slope"], expected, rtol=1e-12, atol=1e-12)
    assert reporter.state["ema_updates"] == 16
    assert torch.equal(reporter.state["model"]["met_large"], reporter.state["trained"]["met_large"])


def test_averaging_changes_nothing_of_what_is_trained() -> None:
    _, plain = go(LineTask(dropout=0.3))
    _, reporter = go(LineTask(dropout=0.3), training={"ema_decay": 0.99})
    assert torch.equal(reporter.state["trained"]["slope"], plain.state["model"]["slope"])
    assert reporter.state.keys() - plain.state.keys() == {"trained", "ema_updates"}
    losses = [[r.metrics["train/total_loss"] for r in other.records] for other in (reporter, plain)]
    assert losses[0] == losses[1]


def test_a_skipped_step_is_no_update() -> None:
    _, reporter = go(LineTask(bad=frozenset({4})), training={"ema_decay": 0.9})
    assert reporter.state["ema_updates"] == 12


def test_a_stop_anywhere_changes_nothing() -> None:
    config = line_config(
        data={"batch_size": 2},
        scheduler={"type": "plateau", "patience": 0},
        training={"ema_decay": 0.9, "gradient_accumulation_steps": 2, "unfreeze": [{"epoch": 1, "part": "heads"}]},
    )
    assert_stops_change_nothing(config, lambda: LineTask(dropout=0.3), steps=range(1, 9), epochs=range(1, 4))


def test_switched_on_or_off_on_resume() -> None:
    _, plain = go(reporter=MemoryReporter(stop_after_epoch=2))
    task = Noting()
    _, on = go(task, MemoryReporter(resume_from=plain.state), training={"ema_decay": 0.9})
    assert torch.equal(task.trained[0]["slope"], plain.state["model"]["slope"])
    assert on.state["ema_updates"] == 8  # counted from where it was switched on
    weights = [w["slope"] for w in task.trained] + [on.state["trained"]["slope"]]
    torch.testing.assert_close(on.state["model"]["slope"], averaged(weights, 0.9))
    _, first = go(reporter=MemoryReporter(stop_after_epoch=2), training={"ema_decay": 0.9})
    task = Noting()
    _, off = go(task, MemoryReporter(resume_from=first.state))
    assert torch.equal(task.trained[0]["slope"], first.state["trained"]["slope"])
    assert "trained" not in off.state


def test_a_run_that_is_handed_weights_begins_with_the_average() -> None:
    _, before = go(training={"ema_decay": 0.9})
    task = Noting()
    go(task, MemoryReporter(resume_from={"model": before.state["model"], "stage": 1}), training={"ema_decay": 0.9})
    assert torch.equal(task.trained[0]["slope"], before.state["model"]["slope"])
