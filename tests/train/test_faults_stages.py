"""The predecessor's faults where stages, unfreezing, averaging and memory touch them: each shown red when put back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from line_run import go
from line_task import LineTask, Points, line_config
from memory_reporter import MemoryReporter
from resuming import assert_same_end

from cabruca.config import layers
from cabruca.config.load import scale_learning_rates
from cabruca.config.stages import stages_of
from cabruca.runtime import Runtime
from cabruca.train import learner
from cabruca.train.loop import train
from cabruca.train.optim import parameter_groups
from cabruca.train.unfreezing import Thaw

STAGES = [{"tile_size": 96, "epochs": 2, "lr": 0.04}, {"tile_size": 128, "epochs": 2, "lr": 0.01}]


class Tight(LineTask):
    """Memory for two pictures a pass."""

    def losses(self, model: Any, batch: Points) -> Any:
        if len(batch.x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().losses(model, batch)


# --- 4: the "full state" checkpoint lacked much of what the run is


def full_state(lost: str | None = None) -> None:
    """A run in stages, with an average, a late part and a finer cut goes on exactly; `lost`: a key that is not kept."""
    config = line_config(
        data={"batch_size": 4},
        scheduler={"type": "plateau", "patience": 0, "warmup_steps": 3},
        training={
            "stages": STAGES,
            "unfreeze": [{"epoch": 1, "part": "backbone"}],
            "ema_decay": 0.9,
            "on_oom": "shrink",
            "minimize_metric": False,
        },
    )
    whole, first = MemoryReporter(), MemoryReporter(stop_at_step=11)  # in the second stage
    train(config, Tight(dropout=0.4), runtime=Runtime.single(), reporter=whole)
    train(config, Tight(dropout=0.4), runtime=Runtime.single(), reporter=first)
    state = {key: value for key, value in first.state.items() if key != lost}
    second, task = MemoryReporter(resume_from=state), Tight(dropout=0.4)
    train(config, task, runtime=Runtime.single(), reporter=second)
    assert_same_end(second.state, whole.state)
    assert max(len(batch) for _, batches in task.seen for batch in batches) == 2, "the cut that fits was not known"


def test_fault_4_full_state_of_stages_is_kept() -> None:
    full_state()


@pytest.mark.parametrize("lost", ["stage_index", "trained", "ema_updates", "shrunk", "optimizer", "scheduler"])
def test_fault_4_put_back_is_seen_in_stages(lost: str) -> None:
    with pytest.raises(AssertionError):
        full_state(lost)


# --- 6: stage two restored optimizer, schedule and epoch, so its rate and its epochs were undone


def stage_two_is_its_own() -> None:
    """In one run, too: its rate from its first step on, its number of epochs, moments without a past."""
    _, reporter = go(scheduler={"type": "exponential", "gamma": 0.5}, training={"stages": STAGES, "log_interval": 1})
    assert [r.metrics["lr/default"] for r in reporter.records] == [0.04, 0.02, 0.01, 0.005]
    assert reporter.records[-1].epoch == 4
    assert int(reporter.state["optimizer"]["state"][0]["step"]) == 8
    first, begun = (saved[1]["model"]["slope"] for saved in reporter.saves[1:3])
    assert not torch.equal(first, torch.tensor([0.1]))
    assert abs(float(begun - first)) < 0.1, "the weights went on"


def test_fault_6_stage_two_of_one_run_is_kept() -> None:
    stage_two_is_its_own()


def test_fault_6_put_back_is_seen_the_stage_is_never_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "stage_at", lambda stages, epoch: stages[0])
    with pytest.raises(AssertionError):
        stage_two_is_its_own()


def test_fault_6_put_back_is_seen_optimizer_and_schedule_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = learner.Learner._begin

    def restoring(self: Any, stage: Any, first_step: int) -> None:
        before = (self.optimizer.state_dict(), self.schedule.state_dict()) if hasattr(self, "schedule") else None
        begin(self, stage, first_step)
        if before is not None:
            learner.load_optimizer(self.optimizer, before[0])
            self.schedule.load_state_dict(before[1])

    monkeypatch.setattr(learner.Learner, "_begin", restoring)
    with pytest.raises(AssertionError):
        stage_two_is_its_own()


# --- 10: gradual unfreezing was documented and not implemented


def unfreezing_is_gradual() -> None:
    """The backbone moves in no epoch before its own and in every epoch from then on."""
    _, reporter = go(training={"unfreeze": [{"epoch": 2, "part": "backbone"}]}, optimizer={"weight_decay": 0.3})
    slope = [0.1, *(round(float(saved[1]["model"]["slope"]), 6) for saved in reporter.saves)]
    moved = [before != after for before, after in pairwise(slope)]
    assert moved == [False, False, True, True]


def test_fault_10_unfreezing_is_kept() -> None:
    unfreezing_is_gradual()


def test_fault_10_put_back_is_seen_nothing_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Thaw, "apply", lambda self, epoch: None)
    with pytest.raises(AssertionError):
        unfreezing_is_gradual()


def test_fault_10_put_back_is_seen_nothing_thaws(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Thaw.apply
    monkeypatch.setattr(Thaw, "apply", lambda self, epoch: apply(self, 0))
    with pytest.raises(AssertionError):
        unfreezing_is_gradual()


# --- 18: `--lr` had no effect where rates were named elsewhere; parts of the network were in no group


def the_rate_flag_reaches_every_stage() -> None:
    config = line_config(optimizer={"lr": 0.02}, training={"stages": STAGES})
    assert [s.config.optimizer.lr for s in stages_of(scale_learning_rates(config, 0.002))] == [0.004, 0.001]


def test_fault_18_the_rate_flag_in_stages_is_kept() -> None:
    the_rate_flag_reaches_every_stage()


def test_fault_18_put_back_is_seen_in_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = layers._scale_rates

    def all_but_stages(raw: dict[str, Any], lr: Any) -> dict[str, Any]:
        return {**scale(raw, lr), "training": raw["training"]}

    monkeypatch.setattr(layers, "_scale_rates", all_but_stages)
    with pytest.raises(AssertionError):
        the_rate_flag_reaches_every_stage()


def test_fault_18_put_back_is_seen_a_thawed_part_in_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups made of what learns at first would leave the part that thaws without a rate for ever."""

    def of_now(model: Any, config: Any, part: Any) -> Any:
        model.slope.requires_grad_(False)
        groups = parameter_groups(model, config, part)
        model.slope.requires_grad_(True)
        return groups

    monkeypatch.setattr(learner, "parameter_groups", of_now)
    with pytest.raises(AssertionError):
        unfreezing_is_gradual()
