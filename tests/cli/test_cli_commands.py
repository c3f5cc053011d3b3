"""Each command hands its flags on, and returns what came back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cabruca.cli.main import main
from cabruca.config.load import load_config
from cabruca.train.protocols import TrainResult


class Recorder:
    """Stands where a function was; keeps what it was called with."""

    def __init__(self, returns: Any) -> None:
        self.returns = returns
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        return self.returns


def run(*args: str) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "c.yaml"
    file.write_text("optimizer: {lr: 1e-4, param_groups: [{name: backbone, lr: 1e-5}]}\n", encoding="utf-8")
    return file


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder(TrainResult("finished", 1, 1, None, None, {}, "done"))
    monkeypatch.setattr("cabruca.run.run_training", recorder)
    return recorder


def test_flags_that_are_not_given_set_nothing(config: Path, training: Recorder) -> None:
    assert run("train", "--config", config).exit_code == 0
    assert training.args == (load_config(config),)
    assert training.kwargs == {
        **{"resume": None, "init_from": None, "dry_run": False, "quiet": False, "json": False},
        "explicit": {},
    }


FLAGS = [
    ("--device cpu", "device", "cpu"),
    ("--experiment-name stage1_256", "experiment_name", "stage1_256"),
    ("--lr 0.00001", "optimizer.lr", 1e-5),
    ("--batch-size 8", "data.batch_size", 8),
    ("--epochs 30", "training.num_epochs", 30),
    ("--grad-accum 4", "training.gradient_accumulation_steps", 4),
    ("--mixed-precision", "training.mixed_precision", True),
    ("--use-mlflow", "tracking.mlflow", True),
    ("--use-wandb", "tracking.wandb", True),
    ("--no-tensorboard", "tracking.tensorboard", False),
    ("--val-frequency 5", "validation.frequency", 5),
    ("--save-frequency 0", "training.save_frequency", 0),
    ("--output-dir elsewhere", "output_dir", "elsewhere"),
    ("--seed 0", "training.seed", 0),
    ("--set data.tile_size=96", "data.tile_size", 96),
    ("--set scheduler.eta_min=1e-7", "scheduler.eta_min", 1e-7),
    ("--set model.heads=[semantic]", "model.heads", ["semantic"]),
    ("--set tracking.mlflow_uri=http://h?a=b", "tracking.mlflow_uri", "http://h?a=b"),
]


@pytest.mark.parametrize(("flag", "key", "value"), FLAGS, ids=[flag for flag, _, _ in FLAGS])
def test_every_flag_sets_its_key(config: Path, training: Recorder, flag: str, key: str, value: object) -> None:
    result = run("train", "--config", str(config), *flag.split())
    assert result.exit_code == 0, result.output
    assert training.kwargs["explicit"] == {key: value}
    assert training.args == (load_config(config, {key: value}),)


def test_lr_scales_the_groups(config: Path, training: Recorder) -> None:
    run("train", "--config", config, "--lr", "1e-5")
    optimizer = training.args[0].optimizer
    assert (optimizer.lr, optimizer.param_groups[0].lr) == (1e-5, 1e-6)


def test_lr_moves_the_peak_of_onecycle(config: Path, training: Recorder) -> None:
    """A rate that stands in the file beside `optimizer.lr` must not take the effect from `--lr`."""
    before = load_config(config).optimizer.lr
    text = config.read_text() + "scheduler: {type: onecycle, max_lr: 0.001}\n"
    config.write_text(text, encoding="utf-8")
    run("train", "--config", config, "--lr", str(before / 10))
    assert training.args[0].scheduler.max_lr == pytest.approx(1e-4)
    run("train", "--config", config, "--lr", "1e-5", "--set", "scheduler.max_lr=0.002")
    assert training.args[0].scheduler.max_lr == 0.002, "both were said"


def test_a_key_given_twice_is_refused(config: Path, training: Recorder) -> None:
    result = run("train", "--config", config, "--lr", "1", "--set", "optimizer.lr=2")
    assert result.exit_code == 2
    assert "'optimizer.lr' is given by --lr and by --set; give it once" in result.stderr


def test_the_other_flags_of_train(config: Path, training: Recorder) -> None:
    run("train", "--config", config, "--resume", "auto", "--dry-run", "--quiet", "--json")
    assert training.kwargs == {
        **{"resume": "auto", "init_from": None, "dry_run": True, "quiet": True, "json": True},
        "explicit": {},
    }
    run("train", "--config", config, "--init-from", "w.pth")
    assert training.kwargs["init_from"] == "w.pth"


@pytest.mark.parametrize("code", [0, 130, 143])
def test_train_exits_as_the_run_ended(config: Path, training: Recorder, code: int) -> None:
    training.returns = TrainResult("interrupted", 1, 1, None, None, {}, "stopped", exit_code=code)
    assert run("train", "--config", config).exit_code == code


NOT_GIVEN = {"inventory": None, "score_threshold": None}


def test_evaluate_writes_one_flat_object(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    numbers = {"bbox_mAP": 0.12345, "segm_mAP": None, "bbox_mAP/cacao_tree": 1.0}
    recorder = Recorder(numbers)
    monkeypatch.setattr("cabruca.evaluation.evaluate", recorder)
    out = tmp_path / "new" / "metrics.json"
    options = ["--checkpoint", "c.pth", "--images", "i", "--annotations", "a.json", "--json", str(out)]
    result = run("evaluate", *options, "--map", "oil palm=cacao_tree", "--map", "a=b=ignore")
    assert result.exit_code == 0, result.output
    assert recorder.args == ("c.pth", "i", "a.json")
    assert recorder.kwargs == {"category_map": {"oil palm": "cacao_tree", "a=b": "ignore"}, **NOT_GIVEN}
    assert json.loads(out.read_text()) == numbers
    assert result.stdout.splitlines() == [
        "bbox_mAP             0.1235",
        "segm_mAP             -",
        "bbox_mAP/cacao_tree  1.0000",
    ]


def test_evaluate_refuses_its_output_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorder = Recorder({"x": math.pi})
    monkeypatch.setattr("cabruca.evaluation.evaluate", recorder)
    options = ["--checkpoint", "c.pth", "--images", "i", "--annotations", "a.json"]
    result = run("evaluate", *options, "--json", str(tmp_path))
    assert (result.exit_code, recorder.args) == (2, ())
    assert f"--json {tmp_path} is a folder; give the name of a file in it" in result.stderr
    assert run("evaluate", *options, "--map", "palm").exit_code == 2
    assert run("evaluate", *options, "--map", "palm=").exit_code == 2
    assert run("evaluate", *options, "--map", "a=b", "--map", "a=c").exit_code == 2


def test_config_show_prints_the_resolved_configuration(config: Path, tmp_path: Path) -> None:
    overrides = ["--set", "data.tile_size=96", "--set", "tracking.mlflow_uri=http://me:pw@host"]
    result = run("config", "show", config, *overrides)
    assert result.exit_code == 0
    assert "pw" not in result.stdout
    (tmp_path / "shown.yaml").write_text(result.stdout, encoding="utf-8")
    shown = load_config(tmp_path / "shown.yaml")
    assert shown == load_config(config, {"data.tile_size": 96, "tracking.mlflow_uri": "http://me:***@host"})


def test_config_validate_needs_no_data(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "data: {train_dir: nowhere}\nmodel: {pretrained_checkpoint: nothing.pth, sam_checkpoint: sam.pth}\n",
        encoding="utf-8",
    )
    result = run("config", "validate", file)
    assert result.exit_code == 0
    first, last = result.stdout.splitlines()
    assert first.startswith("model.sam_checkpoint is accepted and never read")
    assert last == f"{file}: valid"


@pytest.mark.parametrize("code", [0, 1])
def test_demo_hands_on_folder_seed_and_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int) -> None:
    recorder = Recorder(code)
    monkeypatch.setattr("cabruca.demo.run_demo", recorder)
    assert run("demo", "--output-dir", tmp_path, "--seed", "3", "--quiet").exit_code == code
    assert recorder.args == (tmp_path, 3, True, 6)
