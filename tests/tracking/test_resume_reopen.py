"""Going on with a run that stopped early; another place; the input's statistics, which belong to the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_helpers import LineTask, line_config

from cabruca.config.schema import Config
from cabruca.errors import RunError
from cabruca.run import run_training
from cabruca.tracking import trackers as trackers_module
from cabruca.tracking.resume import RunPlan, plan_run
from cabruca.train import checkpoint
from cabruca.train.protocols import BaseCallback, State, TrainResult, Validation

SPEC = {"bands": [1, 2, 3], "scale": 255.0, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


class Flat(LineTask):
    """Never gets better than after its first epoch; its input was measured."""

    def validate(self, *args: Any, **kwargs: Any) -> Validation:
        return Validation({"mAP_50": 0.5})

    def state(self) -> State:
        return {"input": SPEC}


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers_module, "ResultsPlot", lambda *_: BaseCallback())


def _train(config: Config, resume: str | Path | None = None, **explicit: Any) -> TrainResult:
    given = None if resume is None else str(resume)
    return run_training(config, resume=given, task_factory=Flat, quiet=True, explicit=explicit)


def _config(folder: Path, *, epochs: int = 9, patience: int = 2, **more: Any) -> Config:
    return line_config(
        folder, experiment_name="a", training__num_epochs=epochs, training__early_stopping_patience=patience, **more
    )


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run of 9 epochs that stopped after 3, its patience of 2 used up: its checkpoints folder."""
    result = _train(_config(tmp_path))
    assert (result.state, result.epochs, result.best_epoch) == ("finished", 3, 1)
    return tmp_path / "a" / "checkpoints"


@pytest.mark.parametrize("which", ["auto", "latest", "epoch_2"])
def test_a_run_that_stopped_early_says_exactly_what_to_raise(tmp_path: Path, stopped: Path, which: str) -> None:
    given = which if which == "auto" else stopped / f"checkpoint_{which}.pth"
    result = _train(_config(tmp_path), given)
    assert (result.state, result.epochs, result.exit_code) == ("finished", 3, 0)
    assert "stopped early after 3 epochs: 2 validations without improvement" in result.message
    assert "give --set training.early_stopping_patience=4" in result.message


def test_more_epochs_alone_do_not_help_and_that_is_said(tmp_path: Path, stopped: Path) -> None:
    result = _train(_config(tmp_path, epochs=20), "auto")
    assert result.epochs == 3
    assert "early_stopping_patience=4 (above 2; 0: never stop early)" in result.message


@pytest.mark.parametrize(("patience", "epochs"), [(4, 5), (0, 9), (99, 9)])
def test_raised_patience_reopens_the_run(tmp_path: Path, stopped: Path, patience: int, epochs: int) -> None:
    """The remedy as printed works: the saved counter goes on, up to the new patience."""
    result = _train(_config(tmp_path, patience=patience), "auto")
    assert (result.state, result.epochs, result.best_epoch) == ("finished", epochs, 1)
    assert checkpoint.read(stopped / "checkpoint_latest.pth")["validations_without_improvement"] == epochs - 1


def test_both_limits_are_named_where_both_are_reached(tmp_path: Path) -> None:
    _train(_config(tmp_path, epochs=3))
    result = _train(_config(tmp_path, epochs=3), "auto")
    assert "raise --epochs to train on and training.early_stopping_patience above 2" in result.message
    assert _train(_config(tmp_path, epochs=4, patience=0), "auto").epochs == 4


def test_its_own_name_in_another_place_is_a_new_stage(tmp_path: Path, stopped: Path) -> None:
    latest, elsewhere = stopped / "checkpoint_latest.pth", tmp_path / "new"
    before = latest.read_bytes()
    _train(_config(elsewhere, epochs=1), latest, output_dir=str(elsewhere))
    state = checkpoint.read(elsewhere / "a" / "checkpoints" / "checkpoint_latest.pth")
    assert (state["stage"], state["epoch"]) == (1, 1)
    assert latest.read_bytes() == before
    nameless = line_config(elsewhere)
    with pytest.raises(RunError, match=r"--output-dir .*new is not where run .*a lies; leave it out .* or give --exp"):
        plan_run(nameless, str(latest), {"output_dir": str(elsewhere)})


def test_the_flag_may_name_the_place_the_run_is_in(
    tmp_path: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for same in (str(tmp_path), ".", f"{tmp_path}/a/.."):
        plan = plan_run(_config(tmp_path), str(stopped / "checkpoint_latest.pth"), {"output_dir": same})
        assert plan.run_dir is not None


def _statistics(plan: RunPlan) -> tuple[Any, Any]:
    return plan.config.data.mean, plan.config.data.std


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_input_s_statistics_come_with_the_weights(tmp_path: Path, stopped: Path, name: str) -> None:
    """On a resume and on a new stage; what the file gives stays, other bands or another scale are measured anew."""
    latest = str(stopped / "checkpoint_latest.pth")

    def plan(**data: Any) -> RunPlan:
        raw = {"experiment_name": name, "training__early_stopping_patience": 0, "training__num_epochs": 9}
        return plan_run(line_config(tmp_path, **raw, **{f"data__{k}": v for k, v in data.items()}), latest)

    assert _statistics(plan()) == (MEAN, STD)
    assert not any("data.mean" in note for note in plan().notes), "no difference: it is what it was"
    assert _statistics(plan(mean=None, std=None)) == (MEAN, STD), "as a run's own config.yaml writes it"
    assert _statistics(plan(mean=[0.0, 0.0, 0.0])) == ((0.0, 0.0, 0.0), STD)
    assert any(n == "  data.mean: [0.1, 0.2, 0.3] (checkpoint) -> [0.0, 0.0, 0.0]" for n in plan(mean=[0, 0, 0]).notes)
    assert _statistics(plan(bands=[3, 2, 1])) == (None, None)
    assert _statistics(plan(scale=10000.0)) == (None, None)


def test_init_from_brings_them_too(tmp_path: Path, stopped: Path) -> None:
    seen: list[Config] = []

    def task(config: Config) -> Flat:
        seen.append(config)
        return Flat(config)

    best = str(stopped / "checkpoint_best.pth")
    config = line_config(tmp_path, experiment_name="b", training__num_epochs=1, data__mean=[0.0, 0.0, 0.0])
    run_training(config, init_from=best, task_factory=task, quiet=True)
    assert (seen[0].data.mean, seen[0].data.std) == ((0.0, 0.0, 0.0), STD)
    stored = checkpoint.read(tmp_path / "b" / "checkpoints" / "checkpoint_latest.pth")["config"]
    assert stored["data"]["std"] == list(STD)


def test_differences_reach_the_terminal_and_under_quiet_the_log_alone(
    tmp_path: Path, stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = "optimizer.lr: 0.01 (checkpoint) -> 0.02"
    for patience, quiet in ((3, False), (4, True)):
        capsys.readouterr()
        config = _config(tmp_path, patience=patience, optimizer__lr=0.02 if not quiet else 0.01)
        run_training(config, resume="auto", task_factory=Flat, quiet=quiet)
        told = line if not quiet else "optimizer.lr: 0.02 (checkpoint) -> 0.01"
        assert capsys.readouterr().err.count(told) == (not quiet)
        assert (stopped.parent / "train.log").read_text().count(told) == 1
