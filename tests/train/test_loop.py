"""The train function: records, patience, saves, stops, faults of the data and of those who watch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from line_run import Watcher, go
from line_task import LineTask, Points
from memory_reporter import MemoryReporter

from cabruca.errors import CheckpointError, ConfigError, TrainingDiverged
from cabruca.runtime import Runtime
from cabruca.train import loop
from cabruca.train.protocols import Record, State, Validation


def test_records_hold_means_over_pictures_under_fixed_names() -> None:
    """With a rate that changes nothing, an epoch's loss is the mean over its 13 pictures, the short step included."""
    task = LineTask(samples=13)
    _, reporter = go(task, optimizer={"lr": 1e-30}, training={"num_epochs": 1, "log_interval": 3})
    batch = next(iter(task.train_batches(0, [list(range(13))], Runtime.single())))
    expected = float(((0.1 * batch.x + 0.2 - batch.y) ** 2).mean())
    metrics = reporter.records[0].metrics
    assert metrics["train/total_loss"] == pytest.approx(expected, rel=1e-6)
    assert metrics["train/loss_line"] == metrics["train/total_loss"]
    assert metrics["train/skipped_steps"] == 0
    assert metrics["lr/default"] == 1e-30
    assert set(metrics) == {
        *("train/total_loss", "train/loss_line", "train/grad_norm", "train/skipped_steps", "lr/default"),
        *(
            "time/epoch_s",
            "time/train_s",
            "time/data_wait_share",
            "time/images_per_s",
            "memory/rss_mb",
            "val/total_loss",
        ),
    }
    assert [(r.step, bool(r.metrics)) for r in reporter.steps] == [(1, False), (2, False), (3, True), (4, False)]
    assert (reporter.records[0].epoch, reporter.records[0].step) == (1, 4)


def test_time_waiting_for_data_is_seen() -> None:
    class Slow(LineTask):
        def _points(self, epoch: int, index_batches: Any) -> Iterator[Points]:
            for points in super()._points(epoch, index_batches):
                time.sleep(0.02)
                yield points

    _, reporter = go(Slow(), training={"num_epochs": 1})
    metrics = reporter.records[0].metrics
    assert 0.5 < metrics["time/data_wait_share"] <= 1.0
    assert metrics["time/images_per_s"] < 13 / 0.08


def test_validation_comes_every_frequency_epochs_and_after_the_last() -> None:
    _, reporter = go(validation={"frequency": 3}, training={"num_epochs": 7})
    assert [r.epoch for r in reporter.records if "val/total_loss" in r.metrics] == [3, 6, 7]


def test_best_and_numbered_saves() -> None:
    losses = {1: 5.0, 2: 4.0, 3: 4.5, 4: math.nan, 5: 3.0, 6: 3.0}
    task = LineTask(metrics=lambda epoch: {"total_loss": losses[epoch]})
    result, reporter = go(task, training={"num_epochs": 6, "save_frequency": 2})
    flags = [(record.epoch, best, numbered) for record, _, best, numbered in reporter.saves]
    assert flags == [(1, 1, 0), (2, 1, 1), (3, 0, 0), (4, 0, 1), (5, 1, 0), (6, 0, 1)]
    assert (result.best, result.best_epoch, result.state) == (3.0, 5, "finished")
    assert reporter.state["best"] == {"value": 3.0, "epoch": 5}
    _, reporter = go(training={"num_epochs": 3, "save_frequency": 0})
    assert not any(numbered for *_, numbered in reporter.saves)


def test_early_stopping_counts_validations_and_survives_a_resume() -> None:
    task = LineTask(metrics=lambda epoch: {"total_loss": 1.0 if epoch < 4 else 2.0})
    sections = {"training": {"num_epochs": 20, "early_stopping_patience": 3}, "validation": {"frequency": 2}}
    result, reporter = go(task, **sections)  # type: ignore[arg-type]
    assert (result.state, result.epochs, result.best_epoch) == ("finished", 8, 2)
    assert "stopped early after epoch 8: 3 validations without improvement" in result.message
    again, reporter = go(task, MemoryReporter(resume_from=reporter.state), **sections)  # type: ignore[arg-type]
    assert (again.state, again.epochs, reporter.records) == ("finished", 8, [])


def test_a_monitored_metric_that_is_not_measured_lists_what_is() -> None:
    with pytest.raises(
        ConfigError, match=r"'val/mAP' is not measured; choose one of .*train/total_loss, val/total_loss"
    ):
        go(training={"monitor_metric": "val/mAP"})
    with pytest.raises(ConfigError, match="did you mean 'val/total_loss'"):
        go(training={"monitor_metric": "val/total_los"})
    result, _ = go(training={"monitor_metric": "train/total_loss"})
    assert result.best is not None


def test_a_finished_run_takes_no_step_more() -> None:
    first, reporter = go()
    again, reporter = go(reporter=MemoryReporter(resume_from=reporter.state))
    assert (again.state, again.step, again.best) == (first.state, first.step, first.best)
    assert not reporter.steps


def test_a_reporter_may_end_the_run_after_an_epoch() -> None:
    result, reporter = go(reporter=MemoryReporter(stop_after_epoch=2))
    assert (result.state, result.epochs) == ("stopped", 2)
    assert result.message.startswith("the study stops this trial (epoch 2 of 4 done, step 8); best val/total_loss")
    assert reporter.finished == [(result, None)]


def test_a_stop_saves_the_middle_of_the_epoch_once() -> None:
    result, reporter = go(reporter=MemoryReporter(stop_at_step=6))
    assert (result.state, result.epochs, result.step) == ("interrupted", 1, 6)
    record, state, best, numbered = reporter.saves[-1]
    assert (record.epoch, state["epoch"], state["step"], state["step_in_epoch"]) == (1, 1, 6, 2)
    assert not best
    assert not numbered
    assert state["epoch_sums"]["steps"] == 2
    assert len(reporter.saves) == 2


def test_a_state_is_a_snapshot() -> None:
    kept: list[State] = []

    class Keeper(MemoryReporter):
        def save(self, record: Record, save: Any) -> None:
            kept.append(save.state())

    go(reporter=Keeper())
    assert not torch.equal(kept[0]["model"]["slope"], kept[-1]["model"]["slope"])
    assert kept[0]["optimizer"]["state"][0]["step"] == 4


def test_the_state_holds_what_the_contract_names() -> None:
    _, reporter = go()
    assert set(reporter.state) >= {
        *("model", "optimizer", "scheduler", "scaler", "rng", "epoch", "step", "step_in_epoch", "epoch_sums", "best"),
        *("validations_without_improvement", "stage", "config", "task", "threads", "versions", "elapsed_s"),
    }
    assert set(reporter.state["model"]) == {"slope", "offset", "spare", "met_large"}
    assert reporter.state["task"] == {"truth": [3.0, -1.0]}


class TellingTask(LineTask):
    """A validation that says something beside its metrics."""

    def validate(self, *args: Any, epoch: int, **rest: Any) -> Validation:
        return replace(super().validate(*args, epoch=epoch, **rest), beside={"fact": {"after": epoch}})


def test_checkpoints_carry_what_the_last_validation_said() -> None:
    _, reporter = go(TellingTask(), validation={"frequency": 3}, reporter=MemoryReporter(stop_at_step=14))
    assert [(record.epoch, state["beside"]) for record, state, _, _ in reporter.saves] == [
        (1, {}),
        (2, {}),
        (3, {"fact": {"after": 3}}),
        (3, {"fact": {"after": 3}}),  # stopped in the middle of epoch 4
    ]
    _, resumed = go(LineTask(), reporter=MemoryReporter(resume_from=reporter.state, save_at_step=15))
    assert [state["beside"] for _, state, _, _ in resumed.saves] == [{"fact": {"after": 3}}, {}]


def test_weights_alone_begin_a_new_stage() -> None:
    _, before = go()
    handed_on = {"model": before.state["model"], "stage": 1, "step": before.state["step"]}
    watcher = Watcher()
    _, reporter = go(
        reporter=MemoryReporter(resume_from=handed_on), callbacks=[watcher], scheduler={"type": "onecycle"}
    )
    _, fresh = go(scheduler={"type": "onecycle"})
    info = watcher.seen[0][1]
    assert (info.resumed_epoch, info.resumed_step) == (0, 16)
    assert reporter.records[0].stage == reporter.state["stage"] == 1
    assert [r.step for r in reporter.records] == [20, 24, 28, 32]
    assert [r.metrics["lr/default"] for r in reporter.records] == [r.metrics["lr/default"] for r in fresh.records]
    assert reporter.records[0].metrics["train/total_loss"] < fresh.records[0].metrics["train/total_loss"]
    assert reporter.state["optimizer"]["state"][0]["step"] == 16


def test_a_checkpoint_of_another_network_is_refused() -> None:
    _, before = go()
    state = before.state
    for model, shown in [
        ({**state["model"], "slope": torch.ones(2)}, r"'slope' is \[2\] in the checkpoint and \[1\] in this network"),
        ({k: v for k, v in state["model"].items() if k != "slope"}, "'slope' is absent in the checkpoint"),
        ({**state["model"], "more": torch.ones(2)}, r"'more' is \[2\] in the checkpoint and absent in this network"),
    ]:
        with pytest.raises(CheckpointError, match=shown):
            go(reporter=MemoryReporter(resume_from={**state, "model": model}))


def test_another_thread_count_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    _, before = go(reporter=MemoryReporter(stop_after_epoch=1))
    with caplog.at_level(logging.WARNING, "cabruca"):
        go(reporter=MemoryReporter(resume_from=before.state))
        assert not caplog.records
        go(reporter=MemoryReporter(resume_from={**before.state, "threads": 7}))
    assert "made with 7 compute threads and this process has 1" in caplog.text


def test_steps_that_are_not_finite_are_skipped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    _, reporter = go(LineTask(bad=frozenset({4})), training={"max_skipped_steps": 2})
    assert [r.metrics["train/skipped_steps"] for r in reporter.records] == [1.0] * 4
    assert all(math.isfinite(r.metrics["train/total_loss"]) for r in reporter.records)
    assert all(torch.isfinite(weight).all() for weight in reporter.state["model"].values())
    assert reporter.state["optimizer"]["state"][0]["step"] == 12


def test_divergence_names_the_pictures_across_epochs_and_resumes() -> None:
    task = LineTask(samples=2, bad=frozenset({0, 1}))  # one step an epoch, never finite
    sections: Any = {"training": {"max_skipped_steps": 3}}
    _, first = go(task, MemoryReporter(stop_at_step=2), **sections)
    second = MemoryReporter(resume_from=first.state)
    with pytest.raises(
        TrainingDiverged, match=r"^3 optimizer steps in a row .*epoch 3, step 3, .*point_[01], point_[01]\)"
    ):
        go(task, second, **sections)
    assert isinstance(second.finished[0][1], TrainingDiverged)


def test_a_batch_without_any_truth_teaches_nothing_and_hurts_nothing() -> None:
    class Blind(LineTask):
        def losses(self, model: Any, batch: Points) -> Any:
            losses = super().losses(model, batch)
            return type(losses)(losses.total.detach() * 0, losses.parts)

    for training in ({}, {"mixed_precision": True, "precision": "fp16"}):
        _, reporter = go(Blind(), training=training)
        assert torch.equal(reporter.state["model"]["slope"], torch.tensor([0.1]))
        assert reporter.records[0].metrics["train/skipped_steps"] == 0


def test_loaders_are_closed_however_the_epoch_ends() -> None:
    closed: list[int] = []

    class Closing(LineTask):
        def _points(self, epoch: int, index_batches: Any) -> Iterator[Points]:
            try:
                yield from super()._points(epoch, index_batches)
            finally:
                closed.append(epoch)

    go(Closing(), MemoryReporter(stop_at_step=6))
    assert closed == [0, 1]


def test_the_cache_is_emptied_as_often_as_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    emptied: list[torch.device] = []
    monkeypatch.setattr(loop, "empty_cache", emptied.append)
    with caplog.at_level(logging.INFO, "cabruca"):
        go(training={"empty_cache_freq": 5})
    assert len(emptied) == 3
    assert caplog.text.count("a CPU has no cache to empty") == 1
    emptied.clear()
    go()
    assert not emptied


def test_a_rate_lowered_on_resume_takes_effect() -> None:
    groups = {"param_groups": [{"name": "backbone", "lr": 0.01}]}
    _, before = go(reporter=MemoryReporter(stop_after_epoch=1), optimizer=groups)
    _, reporter = go(reporter=MemoryReporter(resume_from=before.state), optimizer={"lr": 0.007})
    assert reporter.records[0].metrics["lr/default"] == 0.007
    assert reporter.state["optimizer"]["state"][0]["step"] == 16  # and the moments are kept


def test_two_runs_of_one_seed_are_bitwise_the_same_and_of_two_are_not() -> None:
    task = LineTask(dropout=0.5)
    states = [go(task, training={"seed": seed})[1].state["model"]["slope"] for seed in (0, 0, 1)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_validation_that_measures_nothing_is_judged_all_the_same() -> None:
    task = LineTask(metrics=lambda _: {})
    result, _ = go(task, training={"monitor_metric": "train/total_loss"})
    assert result.best is not None
    with pytest.raises(ConfigError, match="'val/total_loss' is not measured"):
        go(task)
