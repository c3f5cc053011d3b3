"""Whole runs in stages: their rows, what a person reads, what a resume does and does not do."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_helpers import LineTask, line_config, rows, same_state

from cabruca.config.schema import Config
from cabruca.errors import ConfigError
from cabruca.run import run_training
from cabruca.tracking import trackers as trackers_module
from cabruca.tracking.progress import JsonProgress, LiveProgress, PlainProgress
from cabruca.train import checkpoint
from cabruca.train.protocols import BaseCallback, Record, RunInfo, StageInfo

STAGES = [{"tile_size": 96, "epochs": 2, "lr": 0.02}, {"tile_size": 128, "epochs": 2, "lr": 0.005}]


class Staged(LineTask):
    def num_train_samples(self, epoch: int) -> int:
        return 22 if epoch < 2 else 10


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers_module, "ResultsPlot", lambda *_: BaseCallback())


def staged(folder: Path, **changes: Any) -> Config:
    return line_config(folder, **{"experiment_name": "a", "training__stages": STAGES, **changes})


def trained(config: Config, **how: Any) -> Any:
    return run_training(config, task_factory=Staged, quiet=True, **how)


def test_a_run_leaves_rows_of_its_stages_and_goes_on_from_its_middle(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    result = trained(staged(whole))
    done = [r for r in rows(whole / "a" / "metrics.jsonl") if "val/total_loss" in r]
    assert [(r["stage"], r["epoch"], r["step"]) for r in done] == [(0, 1, 6), (0, 2, 12), (1, 3, 15), (1, 4, 18)]
    assert (result.epochs, result.step) == (4, 18)
    for name in ("checkpoint_epoch_2", "checkpoint_latest"):  # the seam of the stages; the end
        folder = tmp_path / name
        trained(staged(folder))
        trained(staged(folder), resume=str(folder / "a" / "checkpoints" / f"{name}.pth"))
        ours, theirs = (checkpoint.read(f / "a" / "checkpoints" / "checkpoint_latest.pth") for f in (folder, whole))
        assert same_state(*({k: v for k, v in state.items() if k != "config"} for state in (ours, theirs)))


def test_a_run_in_its_first_stage_is_not_finished_by_patience(tmp_path: Path) -> None:
    class Worse(Staged):
        def validate(self, *args: Any, epoch: int, **kwargs: Any) -> Any:
            found = super().validate(*args, epoch=epoch, **kwargs)
            return type(found)({**found.metrics, "mAP_50": 1.0 / epoch})

    config = staged(tmp_path, training__early_stopping_patience=1, training__save_frequency=1)
    run_training(config, task_factory=Worse, quiet=True)
    at_the_seam = tmp_path / "a" / "checkpoints" / "checkpoint_epoch_2.pth"
    status = tmp_path / "a" / "status.json"
    status.write_text(json.dumps({**json.loads(status.read_text()), "state": "interrupted"}))
    result = run_training(config, task_factory=Worse, quiet=True, resume=str(at_the_seam))
    assert result.epochs == 3
    assert "stopped early after epoch 3" in result.message


def test_a_finished_run_says_how_to_lengthen_it(tmp_path: Path) -> None:
    trained(staged(tmp_path))
    again = trained(staged(tmp_path), resume="auto")
    assert "is finished (4 epochs); lengthen the last of training.stages to train on" in again.message
    longer = [STAGES[0], {**STAGES[1], "epochs": 3}]
    assert trained(staged(tmp_path, training__stages=longer), resume="auto").epochs == 5


def test_epochs_by_flag_on_a_resume_are_refused(tmp_path: Path) -> None:
    trained(staged(tmp_path))
    flags = {"training.num_epochs": 9}
    with pytest.raises(ConfigError, match=r"--epochs .* contradicts training\.stages"):
        trained(
            line_config(tmp_path, experiment_name="a", **{"training__num_epochs": 9}), resume="auto", explicit=flags
        )


def test_a_chained_run_counts_on_after_the_stages(tmp_path: Path) -> None:
    trained(staged(tmp_path))
    best = tmp_path / "a" / "checkpoints" / "checkpoint_best.pth"
    trained(line_config(tmp_path, experiment_name="b", training__stages=[]), resume=str(best))
    assert {r["stage"] for r in rows(tmp_path / "b" / "metrics.jsonl")} == {2}


INFO = RunInfo(
    *(4, 6, 4, 8, "cpu", "fp32", 1000, 0, 0, {}),
    stages=(StageInfo(0, 2, 6, 96, 0.02), StageInfo(2, 2, 3, 192, 0.005)),
)


def test_a_dry_run_takes_the_costliest_step_and_reckons_the_others_by_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The largest tiles, which come later; all of the network learning; and not torch.compile's trial of 22 batches."""
    stages = [STAGES[0], {"tile_size": 192, "epochs": 2}]
    unfreeze = [{"epoch": 3, "part": "backbone"}]
    config = staged(tmp_path, training__stages=stages, training__unfreeze=unfreeze, training__compile=True)
    asked: list[tuple[int, int]] = []
    learnt: list[bool] = []

    class Seen(Staged):
        def train_batches(self, epoch: int, index_batches: Any, runtime: Any) -> Any:
            asked.append((epoch, len(index_batches)))
            return super().train_batches(epoch, index_batches, runtime)

        def losses(self, model: Any, batch: Any) -> Any:
            learnt.append(all(p.requires_grad for p in model.parameters()))
            return super().losses(model, batch)

    run_training(config, task_factory=Seen, quiet=True, dry_run=True)
    assert asked == [(2, 2)]
    assert learnt == [True, True]
    assert "s a step (192 px tiles, the largest, nothing frozen, without torch.compile)," in capsys.readouterr().out
    run_training(config, task_factory=Seen, quiet=True, dry_run=True, json=True)
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["tile_size"] == 192
    steps = 2 * 6 / 4 + 2 * 3
    assert facts["total_s"] == pytest.approx(steps * facts["step_s"] + 4 * facts["validation_s"])


def test_people_read_the_arithmetic_of_every_stage(tmp_path: Path) -> None:
    out = io.StringIO()
    PlainProgress(line_config(tmp_path), out).on_start(INFO)
    assert out.getvalue().startswith("2 x 6 + 2 x 3 steps of 8 pictures (4 x 2)")
    assert len(out.getvalue().splitlines()[0]) <= 80


def test_the_bar_counts_the_steps_of_the_epochs_own_stage(tmp_path: Path) -> None:
    live = LiveProgress(line_config(tmp_path), Console(file=io.StringIO(), force_terminal=True))
    live.on_start(INFO)
    bars = []
    for epoch, step in ((0, 5), (1, 8), (2, 13), (3, 17)):
        live.on_step(Record(epoch, step, {}))
        bar = live._bar.tasks[0]
        bars.append((bar.completed, bar.total))
    live._bar.stop()
    assert bars == [(5, 6), (2, 6), (1, 3), (2, 3)]


def test_the_time_left_knows_that_later_tiles_are_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0])
    plain = PlainProgress(line_config(tmp_path), None)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    plain.on_start(INFO)
    # an epoch of 6 steps took 10 s; left: one such, and two of 3 steps of four times the pixels
    assert plain._left_s(Record(1, 6, {})) == pytest.approx(10.0 + 2 * 20.0)


def test_programs_read_it_too(tmp_path: Path) -> None:
    out = io.StringIO()
    JsonProgress(line_config(tmp_path), out).on_start(INFO)
    assert json.loads(out.getvalue())["num_epochs"] == 4
