"""Progressive resolution as one run: each stage with its own tiles, rates, schedule and moments."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from line_run import Watcher, go
from line_task import LineTask, line_config
from memory_reporter import MemoryReporter
from resuming import assert_stops_change_nothing

from cabruca.config.stages import stages_of, tile_size_at
from cabruca.runtime import Runtime
from cabruca.train.batching import epoch_order
from cabruca.train.protocols import RunInfo

STAGES = [{"tile_size": 96, "epochs": 2, "lr": 0.04}, {"tile_size": 128, "epochs": 3, "lr": 0.01}]


class Staged(LineTask):
    """13 samples an epoch in the first stage, 7 in the second: as many as fit at each tile size."""

    def num_train_samples(self, epoch: int) -> int:
        return 13 if epoch < 2 else 7


def staged(**training: Any) -> dict[str, Any]:
    return {"training": {"stages": STAGES, **training}}


def test_a_staged_run_is_the_hand_written_loop_of_its_stages() -> None:
    """Weights go on; optimizer, cosine over the stage's epochs and warm-up in its steps begin anew."""
    config = line_config(
        optimizer={"type": "adamw", "lr": 0.05, "weight_decay": 0.1},
        scheduler={"type": "cosine", "eta_min": 1e-3, "warmup_steps": 3},
        **staged(precision="fp64"),
    )
    reporter = MemoryReporter()
    train_ = go_with(config, reporter)
    assert (train_.epochs, train_.step) == (5, 2 * 4 + 3 * 2)
    task = Staged()
    model = task.build_model().double().train()
    first = 0
    for length, lr in ((2, 0.04), (3, 0.01)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length, eta_min=1e-3)
        step = 0
        for epoch in range(first, first + length):
            order = epoch_order(0, epoch, task.num_train_samples(epoch))
            for i in range(0, len(order), 4):
                batch = next(iter(task.train_batches(epoch, [order[i : i + 4]], Runtime.single())))
                rate = optimizer.param_groups[0]["lr"]
                optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 3)
                optimizer.zero_grad()
                task.losses(model, batch.to("cpu", dtype=torch.float64)).total.mean().backward()
                optimizer.step()
                optimizer.param_groups[0]["lr"] = rate
                step += 1
            cosine.step()
        first += length
    # our cosine is the closed form, torch's is recursive: they differ in the last digits
    torch.testing.assert_close(reporter.state["model"], dict(model.state_dict()), rtol=1e-12, atol=1e-12)


def go_with(config: Any, reporter: MemoryReporter) -> Any:
    from cabruca.train.loop import train

    return train(config, Staged(), runtime=Runtime.single(), reporter=reporter)


@pytest.mark.parametrize("scheduler", ["none", "cosine", "cosine_warm_restarts", "exponential", "onecycle", "plateau"])
def test_every_group_follows_every_schedule_in_every_stage(scheduler: str) -> None:
    """A stage's rate scales all groups, and the peak of one-cycle, by the same factor; each stage begins anew."""
    optimizer = {"lr": 0.02, "param_groups": [{"name": "backbone", "lr": 0.005}]}
    own = {"type": scheduler, "max_lr": 0.1, "T_0": 2, "warmup_steps": 2}
    _, reporter = go(Staged(), optimizer=optimizer, scheduler=own, **staged(log_interval=1))
    rates = [(r.metrics["lr/default"], r.metrics["lr/backbone"]) for r in reporter.steps]
    assert all(backbone == pytest.approx(default / 4, abs=3e-7) for default, backbone in rates)  # eta_min is absolute
    for index, (lr, first) in enumerate(((0.04, 0), (0.01, 8))):
        alone = line_config(
            optimizer={**optimizer, "lr": lr, "param_groups": [{"name": "backbone", "lr": lr / 4}]},
            scheduler={**own, "max_lr": 0.1 * lr / 0.02},
            training={"num_epochs": (2, 3)[index], "log_interval": 1},
        )
        single, task = MemoryReporter(), LineTask(samples=(13, 7)[index])
        from cabruca.train.loop import train

        train(alone, task, runtime=Runtime.single(), reporter=single)
        expected = [r.metrics["lr/default"] for r in single.steps]
        assert [default for default, _ in rates[first : first + len(expected)]] == pytest.approx(expected)


def test_a_stage_without_a_rate_has_the_optimizers() -> None:
    config = line_config(training={"stages": [{"tile_size": 96, "epochs": 2}, {"tile_size": 128, "epochs": 1}]})
    stages = stages_of(config)
    assert [(s.first_epoch, s.end_epoch, s.tile_size, s.config.optimizer.lr) for s in stages] == [
        (0, 2, 96, 0.05),
        (2, 3, 128, 0.05),
    ]
    assert [tile_size_at(config, epoch) for epoch in range(5)] == [96, 96, 128, 128, 128]


def test_records_say_the_stage_and_people_are_told(caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher()
    with caplog.at_level(logging.INFO, "cabruca"):
        _, reporter = go(Staged(), callbacks=[watcher], **staged())
    assert [(r.stage, r.step) for r in reporter.records] == [(0, 4), (0, 8), (1, 10), (1, 12), (1, 14)]
    said = [r.getMessage() for r in caplog.records if getattr(r, "notice", False)]
    assert said == [
        "stage 1 of 2: epochs 1-2, 96 px tiles, lr 0.04",
        "stage 2 of 2: epochs 3-5, 128 px tiles, lr 0.01",
    ]
    info: RunInfo = watcher.seen[0][1]
    assert [info.steps_in(epoch) for epoch in range(5)] == [4, 4, 2, 2, 2]
    assert [info.steps_before(epoch) for epoch in range(6)] == [0, 4, 8, 10, 12, 14]
    assert info.work(0, 2) == 2 * 4 * 96**2
    assert info.work(1, 4) == 4 * 96**2 + 2 * 2 * 128**2


@pytest.mark.parametrize("scheduler", ["plateau", "onecycle"])
def test_a_stop_anywhere_in_any_stage_changes_nothing(scheduler: str) -> None:
    config = line_config(
        data={"batch_size": 2},
        scheduler={"type": scheduler, "patience": 0, "warmup_steps": 3},
        **staged(gradient_accumulation_steps=2, minimize_metric=False),
    )
    whole = assert_stops_change_nothing(config, lambda: Staged(dropout=0.3), steps=range(1, 15), epochs=range(1, 5))
    assert whole.state["stage_index"] == 1
    assert whole.state["optimizer"]["state"][0]["step"] == 6  # of the last stage alone


def test_patience_counts_anew_and_watches_the_last_stage_alone() -> None:
    losses = {1: 1.0, 2: 2.0, 3: 2.0, 4: 2.0, 5: 3.0, 6: 3.0, 7: 3.0, 8: 3.0}
    stages = [{"tile_size": 96, "epochs": 4}, {"tile_size": 128, "epochs": 6}]
    task = LineTask(metrics=lambda epoch: {"total_loss": losses[epoch]})
    result, reporter = go(task, training={"stages": stages, "early_stopping_patience": 2})
    assert (result.epochs, result.best, result.best_epoch) == (6, 1.0, 1)
    assert "stopped early after epoch 6: 2 validations without improvement" in result.message
    _, first = go(task, MemoryReporter(stop_after_epoch=4), training={"stages": stages, "early_stopping_patience": 2})
    assert first.state["validations_without_improvement"] == 3
    again, _ = go(
        task, MemoryReporter(resume_from=first.state), training={"stages": stages, "early_stopping_patience": 2}
    )
    assert (again.epochs, again.message) == (result.epochs, result.message)
    assert reporter.records[-1].stage == 1


def test_a_chain_of_runs_counts_stages_on() -> None:
    _, before = go()
    handed_on = {"model": before.state["model"], "stage": 3}
    _, reporter = go(Staged(), MemoryReporter(resume_from=handed_on), **staged())
    assert [r.stage for r in reporter.records] == [3, 3, 4, 4, 4]
    assert reporter.state["stage"] == 3


def test_a_run_that_is_done_is_done_in_stages_too() -> None:
    first, reporter = go(Staged(), **staged())
    again, reporter = go(Staged(), MemoryReporter(resume_from=reporter.state), **staged())
    assert (again.state, again.step) == (first.state, first.step)
    assert not reporter.steps


def test_a_stage_that_is_added_on_resume_is_trained() -> None:
    _, before = go(Staged(), **staged())
    longer = [*STAGES, {"tile_size": 192, "epochs": 1, "lr": 0.002}]
    result, reporter = go(Staged(), MemoryReporter(resume_from=before.state), training={"stages": longer})
    assert result.epochs == 6
    assert [(r.stage, r.metrics["lr/default"]) for r in reporter.records] == [(2, 0.002)]
