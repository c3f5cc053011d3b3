"""`cabruca checkpoints` and `cabruca compare` on real run folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from run_helpers import LineTask, line_config, same_state

from cabruca.cli.main import main
from cabruca.run import run_training
from cabruca.train import checkpoint


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of four and two epochs, each with a numbered checkpoint an epoch."""
    folder = tmp_path_factory.mktemp("outputs")
    for name, epochs, rate in (("slow", 4, 0.001), ("quick", 2, 0.01)):
        config = line_config(
            folder, experiment_name=name, training__num_epochs=epochs, training__save_frequency=1, optimizer__lr=rate
        )
        run_training(config, task_factory=LineTask, quiet=True)
    return folder


@pytest.fixture
def slow(outputs: Path, tmp_path: Path) -> Path:
    """A copy of the longer run that a test may spoil; hard links become files of their own."""
    return Path(shutil.copytree(outputs / "slow", tmp_path / "slow"))


def test_list_shows_every_checkpoint_and_its_sidecar_s_numbers(outputs: Path) -> None:
    result = run("checkpoints", "list", "slow", "--output-dir", outputs, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["checkpoints"]
    assert [row["name"] for row in rows] == [
        *("checkpoint_best.pth", "checkpoint_latest.pth"),
        *(f"checkpoint_epoch_{n}.pth" for n in (1, 2, 3, 4)),
    ]
    for row in rows:
        sidecar = json.loads(Path(row["path"]).with_suffix(".json").read_text())
        assert {key: row[key] for key in ("epoch", "step", "metric", "bytes")} == {
            key: sidecar[key] for key in ("epoch", "step", "metric", "bytes")
        }
        assert row["condition"] == "intact"
    lines = run("checkpoints", "list", outputs / "slow").stdout.splitlines()
    assert lines[0].split() == ["checkpoint", "epoch", "step", "metric", "size", "condition"]
    assert lines[5].split()[:3] == ["checkpoint_epoch_3.pth", "3", "18"]


def test_a_run_that_is_not_there_is_one_line(outputs: Path, tmp_path: Path) -> None:
    result = run("checkpoints", "list", "slwo", "--output-dir", outputs)
    assert result.exit_code == 2
    assert result.stderr == (f"cabruca: error: 'slwo' is no run folder and no run in {outputs}; did you mean 'slow'?\n")
    assert "give the path of a run folder" in run("compare", "a", "b", "--output-dir", tmp_path).stderr


def test_show_tells_what_is_inside(outputs: Path) -> None:
    result = run("checkpoints", "show", "quick", "--output-dir", outputs, "--checkpoint", "epoch_1", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    state = checkpoint.read(outputs / "quick" / "checkpoints" / "checkpoint_epoch_1.pth")
    assert (facts["epoch"], facts["step"], facts["versions"]) == (1, 6, state["versions"])
    assert facts["parts"] == {"0": {"tensors": 2, "parameters": 8}, "2": {"tensors": 2, "parameters": 5}}
    settings = facts["settings"]
    assert settings["optimizer.lr"] == 0.01
    assert settings["training.num_epochs"] == 2
    assert "data.tile_size" not in settings, "a default"
    text = run("checkpoints", "show", outputs / "quick").stdout
    assert f"{outputs}/quick/checkpoints/checkpoint_best.pth: epoch" in text
    assert "optimizer.lr" in text
    wrong = run("checkpoints", "show", outputs / "quick", "--checkpoint", "epoch_9")
    assert wrong.exit_code == 2
    assert "has no checkpoint 'epoch_9'; use one of best, epoch_1, epoch_2, latest" in wrong.stderr


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_verify_finds_a_flipped_byte_a_lost_file_and_exits_2(slow: Path) -> None:
    assert run("checkpoints", "verify", slow).exit_code == 0
    flip_a_byte(slow / "checkpoints" / "checkpoint_epoch_2.pth")
    (slow / "checkpoints" / "checkpoint_epoch_3.pth").unlink()
    (slow / "checkpoints" / "checkpoint_epoch_4.json").unlink()
    result = run("checkpoints", "verify", slow, "--json")
    assert result.exit_code == 2
    assert (
        "2 of 6 checkpoints are not whole (checkpoint_epoch_2.pth, checkpoint_epoch_3.pth); go on from "
        "checkpoint_best.pth\n" in result.stderr
    )
    vouched = "whole, not vouched for"
    found = {row["name"]: row["condition"] for row in json.loads(result.stdout)["checkpoints"]}
    assert [found[f"checkpoint_epoch_{n}.pth"] for n in (1, 2, 3, 4)] == ["intact", "damaged", "missing", vouched]


def test_verify_reads_a_torn_file_that_has_no_sidecar(slow: Path) -> None:
    torn = slow / "checkpoints" / "checkpoint_epoch_2.pth"
    torn.with_suffix(".json").unlink()
    assert run("checkpoints", "verify", slow).exit_code == 0
    torn.write_bytes(torn.read_bytes()[:-200])
    result = run("checkpoints", "verify", slow)
    assert result.exit_code == 2
    assert "(checkpoint_epoch_2.pth); go on from" in result.stderr


def names(folder: Path) -> set[str]:
    return {path.name.removeprefix("checkpoint_") for path in (folder / "checkpoints").iterdir()}


def test_prune_keeps_the_newest_numbered_ones_and_best_and_latest(slow: Path) -> None:
    before, sizes = names(slow), (slow / "checkpoints" / "checkpoint_epoch_1.pth").stat().st_size
    dry = run("checkpoints", "prune", slow, "--keep", "2", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert dry.stdout.splitlines()[:2] == [f"would be removed: checkpoint_epoch_{n}.pth" for n in (1, 2)]
    assert names(slow) == before
    done = json.loads(run("checkpoints", "prune", slow, "--keep", "2", "--json").stdout)
    assert done["removed"] == ["checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth"]
    assert 1.8 * sizes < done["freed_bytes"] < 2.2 * sizes
    assert names(slow) == {f"{n}.{s}" for n in ("best", "latest", "epoch_3", "epoch_4") for s in ("pth", "json")}
    assert run("checkpoints", "verify", slow).exit_code == 0


def test_a_second_name_of_a_file_frees_nothing(slow: Path) -> None:
    folder = slow / "checkpoints"
    checkpoint.copy(folder / "checkpoint_epoch_1.pth", folder / "checkpoint_best.pth")
    done = json.loads(run("checkpoints", "prune", slow, "--keep", "3", "--json").stdout)
    assert done["removed"] == ["checkpoint_epoch_1.pth"]
    assert done["freed_bytes"] == 0
    assert checkpoint.is_intact(folder / "checkpoint_best.pth")


def test_prune_never_takes_the_one_that_is_whole(slow: Path) -> None:
    whole = slow / "checkpoints" / "checkpoint_epoch_1.pth"
    state = checkpoint.read(whole)
    for path in (slow / "checkpoints").glob("*.pth"):
        if path != whole:
            flip_a_byte(path)
    run("checkpoints", "prune", slow, "--keep", "0")
    assert {"epoch_1.pth", "best.pth", "latest.pth"} == {name for name in names(slow) if name.endswith(".pth")}
    assert same_state(checkpoint.read(whole), state)


def history(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training_history.json").read_text())
    return found


def test_compare_lays_best_and_last_and_settings_side_by_side(outputs: Path) -> None:
    result = run("compare", "slow", "quick", "--output-dir", outputs, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    columns = [history(outputs / name) for name in ("slow", "quick")]
    places = [max(range(len(h["epoch"])), key=lambda i, h=h: h["val/mAP_50"][i]) for h in columns]
    assert found["runs"] == [
        {"name": "slow", "epochs": 4, "best_epoch": places[0] + 1},
        {"name": "quick", "epochs": 2, "best_epoch": places[1] + 1},
    ]
    for name in ("val/total_loss", "train/total_loss"):
        assert found["metrics"][name] == {
            "best": [h[name][i] for h, i in zip(columns, places, strict=True)],
            "last": [h[name][-1] for h in columns],
        }
    assert found["settings"] == {"optimizer.lr": [0.001, 0.01], "training.num_epochs": [4, 2]}
    text = run("compare", outputs / "slow", outputs / "quick", "--metric", "val/mAP*").stdout.splitlines()
    assert text[0].split() == ["metric", "slow", "best", "slow", "last", "quick", "best", "quick", "last"]
    assert [line.split()[0] for line in text[1:3]] == ["epoch", "val/mAP_50"]
    assert ["optimizer.lr", "0.0010", "0.0100"] in [line.split() for line in text]


def test_compare_minds_the_direction_and_a_run_against_itself(outputs: Path, tmp_path: Path) -> None:
    down = Path(shutil.copytree(outputs / "slow", tmp_path / "down"))
    config = (down / "config.yaml").read_text()
    config = config.replace("minimize_metric: false", "minimize_metric: true").replace("val/mAP_50", "val/total_loss")
    (down / "config.yaml").write_text(config + "a_key_of_another_release: 1\n")
    found = json.loads(run("compare", down, outputs / "slow", "--json").stdout)
    losses = history(down)["val/total_loss"]
    assert found["metrics"]["val/total_loss"]["best"][0] == min(losses)
    assert found["settings"]["a_key_of_another_release"] == [1, None]
    assert "the configurations are the same" in run("compare", outputs / "slow", outputs / "slow").stdout


def test_runs_of_one_name_in_two_folders_are_told_apart(outputs: Path, slow: Path) -> None:
    found = json.loads(run("compare", slow, outputs / "slow", outputs / "quick", "--json").stdout)
    assert [one["name"] for one in found["runs"]] == [str(slow), str(outputs / "slow"), "quick"]


def test_one_run_and_a_run_without_epochs_cannot_be_compared(outputs: Path, slow: Path) -> None:
    assert "it takes two to compare" in run("compare", "slow", "--output-dir", outputs).stderr
    (slow / "training_history.json").unlink()
    result = run("compare", slow, outputs / "quick")
    assert result.exit_code == 2
    assert "has no completed epoch to compare" in result.stderr
