"""The rules of --resume and --experiment-name, and of the layers of configuration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_helpers import LineTask, line_config, rows, same_state

from cabruca.config.schema import Config
from cabruca.errors import CheckpointError, ConfigError, RunError
from cabruca.run import run_training
from cabruca.tracking import trackers as trackers_module
from cabruca.tracking.resume import SHAPE_KEYS, plan_run
from cabruca.tracking.status import read_status
from cabruca.train import checkpoint
from cabruca.train.protocols import BaseCallback, TrainResult


def _train(config: Config, resume: str | Path | None = None, **explicit: Any) -> TrainResult:
    return run_training(
        config, resume=None if resume is None else str(resume), task_factory=LineTask, quiet=True, explicit=explicit
    )


@pytest.fixture(autouse=True)
def _no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """results.png has its own test; here it would be most of the time."""
    monkeypatch.setattr(trackers_module, "ResultsPlot", lambda *_: BaseCallback())


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run of 3 epochs named `a`: its checkpoints folder."""
    _train(line_config(tmp_path, experiment_name="a"))
    return tmp_path / "a" / "checkpoints"


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `finished`, for tests that only read."""
    folder = tmp_path_factory.mktemp("once")
    _train(line_config(folder, experiment_name="a"))
    return folder / "a" / "checkpoints"


def _state(folder: Path) -> Any:
    state = checkpoint.read(folder / "checkpoint_latest.pth")
    del state["config"]
    return state


@pytest.mark.parametrize("name", [None, "a"])
@pytest.mark.parametrize("which", ["latest", "epoch_2", "best"])
def test_a_checkpoint_goes_on_in_its_own_folder_exactly(
    tmp_path: Path, finished: Path, name: str | None, which: str
) -> None:
    whole = line_config(tmp_path / "whole", experiment_name="a", training__num_epochs=5, scheduler={"T_max": 3})
    _train(whole)
    more = line_config(
        tmp_path / "other", experiment_name=name, training__num_epochs=5, scheduler={"T_max": 3}
    )  # output_dir of the file does not move a run
    result = _train(more, finished / f"checkpoint_{which}.pth")
    assert result.epochs == 5
    assert same_state(_state(finished), _state(tmp_path / "whole" / "a" / "checkpoints"))
    assert [r["epoch"] for r in rows(finished.parent / "metrics.jsonl") if "val/mAP_50" in r] == [1, 2, 3, 4, 5]
    assert not (tmp_path / "other").exists()


def test_a_new_name_in_the_configuration_opens_a_stage(tmp_path: Path, finished: Path) -> None:
    _train(line_config(tmp_path, experiment_name="b", training__num_epochs=1), finished / "checkpoint_best.pth")
    assert checkpoint.read(tmp_path / "b" / "checkpoints" / "checkpoint_latest.pth")["stage"] == 1
    _train(
        line_config(tmp_path, experiment_name="c", training__num_epochs=1),
        tmp_path / "b" / "checkpoints" / "checkpoint_best.pth",
    )
    assert checkpoint.read(tmp_path / "c" / "checkpoints" / "checkpoint_latest.pth")["stage"] == 2


def test_a_stage_does_not_take_a_folder_with_a_run(tmp_path: Path, finished: Path) -> None:
    _train(line_config(tmp_path, experiment_name="b", training__num_epochs=1))
    with pytest.raises(RunError, match="already holds a run"):
        _train(line_config(tmp_path, experiment_name="b"), finished / "checkpoint_best.pth")


def test_auto_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--resume auto .*give --experiment-name"):
        _train(line_config(tmp_path), "auto")


def test_auto_starts_fresh_where_there_is_nothing(tmp_path: Path) -> None:
    result = _train(line_config(tmp_path, experiment_name="a"), "auto")
    assert (result.state, result.epochs) == ("finished", 3)


def test_auto_starts_fresh_in_a_folder_without_a_whole_checkpoint(tmp_path: Path, finished: Path) -> None:
    for file in finished.glob("*.pth"):
        file.write_bytes(file.read_bytes()[:-10])
    plan = plan_run(line_config(tmp_path, experiment_name="a"), "auto")
    assert plan.state is None
    assert "no intact checkpoint" in plan.notes[0]
    result = _train(line_config(tmp_path, experiment_name="a"), "auto")
    assert result.epochs == 3
    assert [r["epoch"] for r in rows(finished.parent / "metrics.jsonl") if "val/mAP_50" in r] == [1, 2, 3]


def test_auto_does_not_start_over_checkpoints_that_lost_their_sidecars(tmp_path: Path, finished: Path) -> None:
    """Only the .pth files were copied to another machine: a fresh start would overwrite them."""
    for sidecar in finished.glob("*.json"):
        sidecar.unlink()
    plan = plan_run(line_config(tmp_path, experiment_name="a", training__num_epochs=4), "auto")
    assert plan.state is not None
    assert plan.state["epoch"] == 3


def test_auto_passes_over_a_damaged_latest(tmp_path: Path, finished: Path) -> None:
    latest = finished / "checkpoint_latest.pth"
    bytes_before = latest.read_bytes()
    latest.unlink()  # best may be the same file under another name
    latest.write_bytes(bytes_before[:-1] + b"x")
    (finished / "checkpoint_best.pth").unlink()
    plan = plan_run(line_config(tmp_path, experiment_name="a", training__num_epochs=4), "auto")
    assert plan.state is not None
    assert plan.state["epoch"] == 2  # checkpoint_epoch_2
    with pytest.raises(CheckpointError, match="damaged"):
        plan_run(line_config(tmp_path), str(latest))


@pytest.mark.parametrize("resume", ["auto", "latest", "epoch_2"])
def test_a_finished_run_says_so(
    tmp_path: Path, finished: Path, resume: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {p: p.read_bytes() for p in finished.parent.rglob("*") if p.is_file()}
    given = "auto" if resume == "auto" else str(finished / f"checkpoint_{resume}.pth")
    result = run_training(line_config(tmp_path, experiment_name="a"), resume=given, task_factory=LineTask)
    assert (result.state, result.exit_code, result.epochs) == ("finished", 0, 3)
    assert "is finished (3 epochs); raise --epochs" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in finished.parent.rglob("*") if p.is_file()} == before


def test_a_run_killed_after_its_last_checkpoint_is_put_right(tmp_path: Path, finished: Path) -> None:
    status = json.loads((finished.parent / "status.json").read_text())
    dead = {**status, "state": "running", "pid": 2**22 + 5, "heartbeat": 0.0}
    (finished.parent / "status.json").write_text(json.dumps(dead))
    assert _train(line_config(tmp_path, experiment_name="a"), "auto").state == "finished"
    now = read_status(finished.parent / "status.json")
    assert now is not None
    assert (now["state"], now["epoch"]) == ("finished", 3)


def test_layers_checkpoint_file_flags(tmp_path: Path) -> None:
    """Flags win over the file, the file over the checkpoint, the checkpoint over the defaults."""
    first = line_config(tmp_path, experiment_name="a", training__seed=5, training__gradient_clip=0.5)
    _train(first)
    latest = tmp_path / "a" / "checkpoints" / "checkpoint_latest.pth"
    file = line_config(tmp_path, training__gradient_clip=0.25, training__num_epochs=9)
    flagged = file.model_copy(update={"training": file.training.model_copy(update={"num_epochs": 4})})
    plan = plan_run(flagged, str(latest), {"training.num_epochs": 4})
    assert (plan.config.training.seed, plan.config.training.gradient_clip) == (5, 0.25)
    assert plan.config.training.num_epochs == 4
    assert plan.config.experiment_name == "a"
    text = "\n".join(plan.notes)
    assert "training.gradient_clip: 0.5 (checkpoint) -> 0.25" in text
    assert "training.num_epochs: 3 (checkpoint) -> 4" in text
    assert "seed" not in text


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "num_instance_classes", 4),
        ("model", "num_semantic_classes", 3),
        ("model", "backbone", "resnet18"),
        ("model", "pretrained", "none"),
        ("model", "heads", ["instance"]),
        ("model", "fpn_channels", 64),
        ("model", "box_head_channels", 64),
        ("model", "mask_head_layers", 2),
        ("model", "anchor_sizes_px", [8.0, 16.0, 32.0, 64.0]),
        ("model", "anchor_ratios", [1.0]),
        ("data", "bands", [1]),
    ],
)
def test_another_shape_of_the_model_is_refused(
    tmp_path: Path, finished_once: Path, section: str, key: str, value: Any
) -> None:
    assert f"{section}.{key}" in SHAPE_KEYS
    changed = line_config(tmp_path, **{f"{section}__{key}": value})
    for config in (changed, changed.model_copy(update={"experiment_name": "b"})):
        with pytest.raises(
            ConfigError, match=rf"{section}\.{key}: .* changes the shape of the model.*set it back"
        ) as e:
            plan_run(config, str(finished_once / "checkpoint_latest.pth"))
        assert "\n" not in str(e.value)
    assert not (tmp_path / "b").exists()


def test_other_anchor_values_of_the_same_number_are_a_difference_only(tmp_path: Path, finished: Path) -> None:
    config = line_config(tmp_path, model={"anchor_sizes_px": [8.0, 16.0, 32.0, 64.0, 128.0]}, training__num_epochs=4)
    plan = plan_run(config, str(finished / "checkpoint_latest.pth"))
    assert any("anchor_sizes_px" in note for note in plan.notes)


def test_a_checkpoint_outside_a_run_needs_a_name(tmp_path: Path, finished: Path) -> None:
    lone = tmp_path / "lone.pth"
    shutil.copy(finished / "checkpoint_best.pth", lone)
    with pytest.raises(RunError, match=r"lies in no run folder .*--experiment-name"):
        plan_run(line_config(tmp_path), str(lone))
    plan = plan_run(line_config(tmp_path, experiment_name="b"), str(lone))
    assert plan.state is not None
    assert set(plan.state) == {"model", "stage"}


def test_two_sources_of_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        run_training(line_config(tmp_path), resume="x.pth", init_from="y.pth", task_factory=LineTask)
