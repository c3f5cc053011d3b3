"""In this process or on workers: who decides, and that Ray is imported only where it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cabruca.cli.main import main
from cabruca.cli.options import Workers
from cabruca.config.load import config_from_dict
from cabruca.launch import needs_workers, unused_gpus

TESTS = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("distributed", "address", "wanted"),
    [
        ({}, None, False),
        ({"num_workers": 1}, None, False),
        ({"num_workers": 2}, None, True),
        ({"num_workers": "auto"}, None, True),
        ({"num_workers": [1, 2]}, None, True),
        ({"address": "auto"}, None, True),
        ({}, "10.0.0.1:6379", True),
    ],
)
def test_who_needs_workers(
    monkeypatch: pytest.MonkeyPatch, distributed: dict[str, object], address: str | None, wanted: bool
) -> None:
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert needs_workers(config_from_dict({"distributed": distributed})) is wanted


def test_one_worker_trains_without_importing_ray(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from run_helpers import LineTask, line_config

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ray":
            raise AssertionError("ray was imported")

sys.meta_path.insert(0, Blocker())
import cabruca
config = line_config({str(tmp_path)!r}, distributed__num_workers=1)
print(cabruca.train(config, task_factory=LineTask, quiet=True).state)
assert "ray" not in sys.modules
assert not [name for name in sys.modules if name.startswith("cabruca.distributed")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["finished"]


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("auto", "auto"), ("2-8", [2, 8]), ("3-3", [3, 3])])
def test_workers_are_a_number_auto_or_a_range(text: str, value: object) -> None:
    assert Workers().convert(text, None, None) == value


@pytest.mark.parametrize("text", ["0", "-1", "many", "4-2", "2-", "1.5", ""])
def test_other_words_for_workers_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a number of workers; write 4, auto, or 1-2"):
        Workers().convert(text, None, None)


@pytest.mark.parametrize(
    ("raw", "gpus", "said"),
    [
        ({"device": "cuda"}, 4, 4),
        ({"device": "auto"}, 2, 2),
        ({"device": "cuda"}, 1, 0),
        ({"device": "cpu"}, 4, 0),
        ({"device": "cuda", "distributed": {"num_workers": 4}}, 4, 0),
    ],
)
def test_gpus_that_would_idle_are_counted(raw: dict[str, object], gpus: int, said: int) -> None:
    assert unused_gpus(config_from_dict(raw), count=lambda: gpus) == said


def test_the_command_for_all_gpus_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"output_dir: {tmp_path}\ndata:\n  train_annotations: {tmp_path}/none.json\n")
    monkeypatch.setattr("cabruca.launch.unused_gpus", lambda config: 2)
    monkeypatch.setattr("sys.argv", ["cabruca", "train", "--config", str(file), "--seed", "3"])
    told = CliRunner().invoke(main, ["train", "--config", str(file)])
    assert "2 GPUs are here and this run uses one; all of them:" in told.output
    assert f"train --config {file} --seed 3 --workers auto" in told.output
    for given in (["--workers", "1"], ["--set", "distributed.num_workers=1"], ["--quiet"]):  # one was asked for
        told = CliRunner().invoke(main, ["train", "--config", str(file), *given])
        assert "GPUs are here" not in told.output
