"""Faults of the predecessor that training touches: each promise, and each shown broken when the fault is put back.

A promise is a function that asserts. `test_..._is_kept` runs it on our code; `test_..._put_back_is_seen` puts the
fault back with monkeypatch and expects the same function to fail.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from line_task import LineTask, Points, line_config
from memory_reporter import MemoryReporter
from processes import kill_myself, killed_child

from cabruca.config import load
from cabruca.config.load import scale_learning_rates
from cabruca.runtime import Runtime
from cabruca.train import checkpoint, learner, precision
from cabruca.train.batching import BatchPlan
from cabruca.train.loop import train
from cabruca.train.protocols import State
from cabruca.train.state import Place

ALONE = Runtime.single()

# --- 4: the "full state" checkpoint lacked scaler, RNG states, patience, global step, sampler position


def full_state(lost: str | None = None) -> None:
    """A run that is stopped in the middle of an epoch ends as if it had not been; `lost`: a key that is not kept."""
    config = line_config(
        data={"batch_size": 2},
        scheduler={"type": "plateau", "patience": 1, "factor": 0.5, "warmup_steps": 30},
        training={
            "num_epochs": 6,
            "mixed_precision": True,
            "precision": "fp16",
            "minimize_metric": False,
            "early_stopping_patience": 5,
        },
    )
    task = LineTask(samples=13, dropout=0.5, bad=frozenset({3}))
    whole, first = MemoryReporter(), MemoryReporter(stop_at_step=31)
    train(config, task, runtime=ALONE, reporter=whole)
    train(config, task, runtime=ALONE, reporter=first)
    state = {key: value for key, value in first.state.items() if key != lost}
    second = MemoryReporter(resume_from=state)
    train(config, task, runtime=ALONE, reporter=second)
    for name, weight in whole.state["model"].items():
        assert torch.equal(second.state["model"][name], weight), name
    for key in ("scaler", "best", "epoch", "step", "step_in_epoch", "validations_without_improvement", "scheduler"):
        assert second.state[key] == whole.state[key], key
    assert torch.equal(second.state["rng"][0]["torch"], whole.state["rng"][0]["torch"])
    assert losses(second) == losses(whole)[-len(second.records) :]


def losses(reporter: MemoryReporter) -> list[tuple[float, float]]:
    return [(r.metrics["train/total_loss"], r.metrics["train/skipped_steps"]) for r in reporter.records]


def test_fault_4_full_state_is_kept() -> None:
    full_state()


@pytest.mark.parametrize(
    "lost",
    [
        *("optimizer", "scheduler", "scaler", "rng", "epoch", "step", "step_in_epoch", "epoch_sums", "best"),
        "validations_without_improvement",
    ],
)
def test_fault_4_put_back_is_seen(lost: str) -> None:
    with pytest.raises(AssertionError):
        full_state(lost)


def test_fault_4_the_counter_of_bad_steps_is_kept() -> None:
    assert Place.from_state(Place(skipped_in_a_row=3).to_state()).skipped_in_a_row == 3


# --- 5: checkpoints were written in place; a kill in the write left a broken `latest`


def write_in_place(path: Path, state: State, *, metric: float | None) -> None:
    torch.save(state, path)


def kill_in_the_write(folder: Path) -> None:
    """A process that dies of SIGKILL with half of a checkpoint on the disk leaves the one before it readable."""
    latest = folder / "checkpoint_latest.pth"
    checkpoint.write(latest, {"epoch": 1, "model": {"w": torch.ones(1000)}}, metric=None)

    def half(state: State, target: Any) -> None:
        whole = io.BytesIO()
        save(state, whole)
        with target.open("wb") if isinstance(target, Path) else target as file:
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            kill_myself()

    def work() -> None:
        torch.save = half
        checkpoint.write(latest, {"epoch": 2, "model": {"w": torch.zeros(1000)}}, metric=None)

    save = torch.save
    assert killed_child(work)
    try:
        assert checkpoint.read(latest)["epoch"] == 1
    except checkpoint.CheckpointError as error:
        raise AssertionError(str(error)) from error
    assert checkpoint.newest_intact(folder) == latest


def test_fault_5_atomic_write_is_kept(tmp_path: Path) -> None:
    kill_in_the_write(tmp_path)


def test_fault_5_put_back_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "write", write_in_place)
    with pytest.raises(AssertionError, match="damaged"):
        kill_in_the_write(tmp_path)


# --- 14: mixed precision was CUDA FP16 only


@dataclass
class Laptop:
    """No CUDA; bf16 on its CPU, autocast on MPS."""

    def cuda(self) -> bool:
        return False

    def mps(self) -> bool:
        return True

    def bf16(self, device: str) -> bool:
        return device == "cpu"

    def mps_autocast(self) -> bool:
        return True


def mixed_beyond_cuda() -> None:
    """`mixed_precision: true` means something on a CPU with bf16 and on MPS, and the forward pass runs in it."""
    settings = line_config(training={"mixed_precision": True}).training
    formats: list[torch.dtype] = []

    class Looking(LineTask):
        def losses(self, model: Any, batch: Points) -> Any:
            formats.append(model(batch.x).dtype)
            return super().losses(model, batch)

    resolved = precision.resolve(settings, "cpu", Laptop())
    assert resolved.name == "bf16"
    assert precision.resolve(settings, "mps", Laptop()).name == "fp16"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learner, "resolve", lambda *_: resolved)
        train(line_config(training={"num_epochs": 1}), Looking(), runtime=ALONE, reporter=MemoryReporter())
    assert set(formats) == {torch.bfloat16}


def test_fault_14_mixed_precision_beyond_cuda_is_kept() -> None:
    mixed_beyond_cuda()


def test_fault_14_put_back_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_mixed_formats", lambda device, _: ["fp16"] if device == "cuda" else [])
    with pytest.raises(AssertionError):
        mixed_beyond_cuda()


# --- 15: the last, incomplete accumulation group of each epoch was thrown away


def last_group_teaches() -> None:
    """13 pictures, 8 a step: two steps an epoch; the second is the mean over its own 5 pictures."""
    config = line_config(
        data={"batch_size": 4},
        optimizer={"type": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
        training={"num_epochs": 1, "gradient_accumulation_steps": 2, "log_interval": 1},
    )
    task, reporter = LineTask(samples=13), MemoryReporter()
    train(config, task, runtime=ALONE, reporter=reporter)
    seen = [index for _, batches in task.seen for batch in batches for index in batch]
    assert sorted(seen) == list(range(13))
    assert len(reporter.steps) == 2
    slope, offset = 0.1, 0.2
    for pictures in (seen[:8], seen[8:]):
        batch = next(iter(LineTask().train_batches(0, [pictures], ALONE)))
        residual = (slope * batch.x + offset - batch.y).double()
        slope -= 0.1 * float((2 * residual * batch.x).mean())
        offset -= 0.1 * float((2 * residual).mean())
    learnt = reporter.state["model"]
    torch.testing.assert_close(torch.cat([learnt["slope"], learnt["offset"]]), torch.tensor([slope, offset]))


def test_fault_15_the_last_group_is_kept() -> None:
    last_group_teaches()


@pytest.mark.parametrize(
    "fault",
    [
        ("steps", property(lambda plan: plan.num_samples // plan.effective_batch)),  # thrown away
        ("pictures", lambda plan, step: plan.effective_batch),  # taken, but weighted as if it were whole
    ],
    ids=["thrown away", "weighted wrong"],
)
def test_fault_15_put_back_is_seen(fault: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BatchPlan, *fault)
    with pytest.raises(AssertionError):
        last_group_teaches()


# --- 18: `--lr` had no effect with parameter groups, and parts of the network were in no group


def every_rate_follows_and_every_part_learns() -> None:
    """Twice the rate moves every parameter twice as far, in a group or not."""
    config = line_config(
        optimizer={
            "type": "sgd",
            "lr": 1e-4,
            "momentum": 0.0,
            "nesterov": False,
            "weight_decay": 0.1,
            "param_groups": [{"name": "backbone", "lr": 1e-5}],
        },
        training={"num_epochs": 1},
        data={"batch_size": 13},
    )

    class Taught(LineTask):
        def losses(self, model: Any, batch: Points) -> Any:
            losses = super().losses(model, batch)
            return type(losses)(losses.total + model.spare**2, losses.parts)

    start = dict(Taught().build_model().named_parameters())
    moved = []
    for chosen in (config, load.scale_learning_rates(config, 2e-4)):
        reporter = MemoryReporter()
        train(chosen, Taught(), runtime=ALONE, reporter=reporter)
        moved.append({name: float(reporter.state["model"][name] - start[name].detach()) for name in start})
    assert all(distance != 0 for distance in moved[0].values())
    assert moved[1] == pytest.approx({name: 2 * distance for name, distance in moved[0].items()}, rel=2e-2)


def test_fault_18_rates_and_groups_are_kept() -> None:
    every_rate_follows_and_every_part_learns()


def test_fault_18_put_back_is_seen_lr_without_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_the_default(config: Any, lr: float) -> Any:
        scaled = scale_learning_rates(config, lr)
        groups = config.optimizer.param_groups
        return scaled.model_copy(update={"optimizer": scaled.optimizer.model_copy(update={"param_groups": groups})})

    monkeypatch.setattr(load, "scale_learning_rates", only_the_default)
    with pytest.raises(AssertionError):
        every_rate_follows_and_every_part_learns()


def test_fault_18_put_back_is_seen_parts_in_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = learner.parameter_groups
    monkeypatch.setattr(learner, "parameter_groups", lambda *args: [g for g in ours(*args) if g.name != "default"])
    with pytest.raises(AssertionError):
        every_rate_follows_and_every_part_learns()
