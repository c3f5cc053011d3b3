"""The command line on the real network: train, evaluate, interrupt, go on, open a second stage."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from drawn_farm import farm_settings, write_farm
from predecessor_files import nested

from cabruca.cli.main import main
from cabruca.train import checkpoint

REPO = Path(__file__).resolve().parents[2]


def cabruca(*words: str | Path, code: int = 0) -> Result:
    """The command in this process: one of its own would import torch for each."""
    done = CliRunner().invoke(main, list(map(str, words)))
    assert done.exit_code == code, done.output
    return done


def sets(settings: Mapping[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def write_config(path: Path, settings: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(nested(settings)))
    return path


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_farm(tmp_path_factory.mktemp("farm"))


@pytest.fixture(scope="module")
def finished(farm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder / "farm.yaml", farm_settings(farm, folder / "outputs"))
    cabruca("train", "--config", config, "--experiment-name", "first", "--save-frequency", "1")
    return folder / "outputs" / "first"


def test_a_run_leaves_what_was_promised(finished: Path) -> None:
    names = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    promised = {"config.yaml", "environment.json", "status.json", "train.log", "metrics.jsonl", "training_history.json"}
    promised |= {
        f"checkpoints/checkpoint_{n}.{s}" for n in ("best", "latest", "epoch_1", "epoch_2") for s in ("pth", "json")
    }
    assert promised <= names
    assert any(n.startswith("predictions/val_") for n in names)
    history = json.loads((finished / "training_history.json").read_text())
    assert {
        "train/total_loss",
        "train/loss_instance",
        "train/loss_semantic",
        "train/loss_crown",
        "train/loss_density",
    } <= set(history)
    assert {
        "val/total_loss",
        "val/loss_instance",
        "val/mAP_50",
        "val/segm_mAP_50",
        "val/mIoU",
        "val/canopy_iou",
    } <= set(history)
    assert all(v > 0 for n in ("instance", "semantic", "crown", "density") for v in history[f"train/loss_{n}"])


def test_evaluate_gives_the_numbers_of_training_under_the_same_names(
    finished: Path, farm: Path, tmp_path: Path
) -> None:
    out = tmp_path / "metrics.json"
    latest = finished / "checkpoints" / "checkpoint_latest.pth"
    printed = cabruca(
        "evaluate",
        "--checkpoint",
        latest,
        "--images",
        farm / "images",
        "--annotations",
        farm / "farm.json",
        "--json",
        out,
    ).stdout
    found = json.loads(out.read_text())
    last = {k.removeprefix("val/"): v for k, v in rows(finished)[-1].items() if k.startswith("val/")}
    assert found.keys() == last.keys()
    for name, value in last.items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-5)), name
    assert "segm_mAP_50" in printed


def test_categories_of_another_data_set_are_mapped_or_named(finished: Path, farm: Path, tmp_path: Path) -> None:
    coco = json.loads((farm / "farm.json").read_text())
    coco["categories"] = [{"id": 1, "name": "theobroma"}, {"id": 2, "name": "inga"}]
    (tmp_path / "other.json").write_text(json.dumps(coco))
    best = finished / "checkpoints" / "checkpoint_best.pth"
    words = ["evaluate", "--checkpoint", best, "--images", farm / "images", "--annotations", tmp_path / "other.json"]
    refused = cabruca(*words, code=2).stderr
    assert "theobroma" in refused
    assert "inga" in refused
    assert len(refused.strip().splitlines()) == 1
    cabruca(*words, "--map", "theobroma=cacao_tree", "--map", "inga=shade_tree")


def test_boxes_alone_give_no_mask_metrics(tmp_path: Path) -> None:
    farm = write_farm(tmp_path / "farm", boxes_only=True)
    config = write_config(tmp_path / "farm.yaml", {**farm_settings(farm, tmp_path), "training.num_epochs": 1})
    cabruca("train", "--config", config, "--experiment-name", "boxes")
    last = rows(tmp_path / "boxes")[-1]
    assert last["train/loss_instance"] > 0
    for name in ("semantic", "crown", "density", "instance/mask"):
        assert last[f"train/loss_{name}"] is last[f"val/loss_{name}"] is None, name
    assert last["val/bbox_mAP"] is not None
    assert all(v is None for k, v in last.items() if "segm_" in k)
    assert last["val/mAP"] == last["val/bbox_mAP"]


def test_a_terminated_run_goes_on_bitwise(farm: Path, tmp_path: Path) -> None:
    """SIGTERM in the middle of a real training; the printed way on; the weights of the undisturbed run."""
    settings = {**farm_settings(farm, tmp_path), "data.windows_per_epoch": 12, "training.mixed_precision": True}
    config = write_config(tmp_path / "farm.yaml", settings)
    cabruca("train", "--config", config, "--experiment-name", "whole")
    command = [
        sys.executable,
        "-m",
        "cabruca",
        "train",
        "--config",
        str(config),
        "--experiment-name",
        "cut",
        "--set",
        "training.log_interval=1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_row(tmp_path / "cut")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "--resume" in said
    broken = checkpoint.read(tmp_path / "cut" / "checkpoints" / "checkpoint_latest.pth")
    assert 0 < broken["step"] < 12
    cabruca("train", "--config", config, "--experiment-name", "cut", "--resume", "auto")
    ours, whole = (checkpoint.read(tmp_path / n / "checkpoints" / "checkpoint_latest.pth") for n in ("cut", "whole"))
    assert ours["step"] == whole["step"]
    torch.testing.assert_close(ours["model"], whole["model"], rtol=0, atol=0)
    # a finished run says so and is left alone
    assert "finished" in cabruca("train", "--config", config, "--experiment-name", "cut", "--resume", "auto").stdout


def wait_for_row(run: Path) -> None:
    """Until the first optimizer step is on record."""
    for _ in range(600):
        if (run / "metrics.jsonl").is_file() and (run / "metrics.jsonl").read_text().strip():
            return
        time.sleep(0.1)
    raise AssertionError("no step within a minute")


def test_the_predecessors_two_stage_recipe_works_as_written(farm: Path, tmp_path: Path) -> None:
    """Its commands, on the standard preset, with only the data, the size and the network made small."""
    small = {k: v for k, v in farm_settings(farm, tmp_path / "outputs").items() if not k.startswith("optimizer")}
    small |= {"training.num_epochs": 1, "data.windows_per_epoch": 4}
    preset = REPO / "configs" / "training_config.yaml"
    one = {k: v for k, v in small.items() if k != "training.num_epochs"}
    cabruca("train", "--config", preset, "--experiment-name", "stage1_256", "--epochs", "1", *sets(one))
    best = tmp_path / "outputs" / "stage1_256" / "checkpoints" / "checkpoint_best.pth"
    two = {**small, "data.tile_size": 128}
    cabruca(
        "train", "--config", preset, "--resume", best, "--experiment-name", "stage2_512", "--lr", "0.00001", *sets(two)
    )
    run = tmp_path / "outputs" / "stage2_512"
    state = checkpoint.read(run / "checkpoints" / "checkpoint_latest.pth")
    assert state["epoch"] == 1, "its own epochs, from the start"
    rates = {k: v for k, v in rows(run)[-1].items() if k.startswith("lr/")}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 1e-5
    assert {g["name"]: g["lr"] for g in config["optimizer"]["param_groups"]} == {
        "backbone": 1e-6,
        "heads": 1e-5,
        "custom": 2e-5,
    }
    assert max(rates.values()) <= 2e-5
    before = checkpoint.read(best)["model"]
    drift = max(
        float((state["model"][k].float() - v.float()).abs().max()) for k, v in before.items() if v.is_floating_point()
    )
    assert 0 < drift < 1e-3, "the weights came along, and moved by small steps"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evaluate", "--checkpoint", "nowhere.pth", "--images", ".", "--annotations", "x.json"], "nowhere.pth"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["train", "--config", "{config}", "--device", "cuda"], "--device auto"),
        (["train", "--config", "{config}", "--set", "data.train_annotations=gone.json"], "gone.json"),
        (["train", "--config", "{config}", "--set", "training.monitor_metric=val/mAP50"], "did you mean 'val/mAP_50'"),
    ],
)
def test_mistakes_are_one_line_with_exit_code_2(farm: Path, tmp_path: Path, words: list[str], told: str) -> None:
    config = write_config(
        tmp_path / "farm.yaml", {**farm_settings(farm, tmp_path / "outputs"), "training.num_epochs": 1}
    )
    done = cabruca(*(w.format(config=config) for w in words), code=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("cabruca: error: ")]
    assert len(lines) == 1
    assert told in lines[0]
    assert "Traceback" not in done.stderr
