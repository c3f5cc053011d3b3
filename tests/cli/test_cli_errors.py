"""Whatever goes wrong: one line on stderr, the right exit code, no traceback."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cabruca.cli.main import main
from cabruca.errors import (
    CabrucaError,
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    RunError,
    TrainingDiverged,
)

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    return lambda *args: CliRunner().invoke(main, list(args))


@pytest.fixture
def config(tmp_path: Path) -> str:
    (tmp_path / "c.yaml").write_text("device: cpu\n", encoding="utf-8")
    return str(tmp_path / "c.yaml")


def one_line(result: Result) -> str:
    """The line without its prefix; the traceback, if there is one, is shown."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    assert result.stderr.startswith("cabruca: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("cabruca: error: ").rstrip("\n")


USAGE = [
    (["trian"], "'trian' is not a command; did you mean 'train'?; see 'cabruca --help'"),
    (
        ["xyz"],
        "'xyz' is not a command; use one of train, tune, evaluate, predict, report, export, checkpoints, ",
    ),
    (["--verison"], "No such option"),
    (["train"], "Missing option '--config'; see 'cabruca train --help'"),
    (["train", "--config"], "Option '--config' requires an argument"),
    (["train", "--config", "x", "--bacth-size", "2"], "No such option '--bacth-size'"),
    (["train", "--config", "x", "--lr", "0"], "Invalid value for '--lr': 0.0 is not in the range x>0; see 'cabruca"),
    (["train", "--config", "x", "--lr", "fast"], "Invalid value for '--lr'"),
    (["train", "--config", "x", "--epochs", "0"], "Invalid value for '--epochs': 0 is not in the range x>=1; see"),
    (["train", "--config", "x", "--device", "gpu"], "Invalid value for '--device': 'gpu' is not one of 'auto', 'cpu'"),
    (["train", "--config", "x", "more"], "Got unexpected extra argument"),
    (["train", "--config", "nothing.yaml"], "configuration nothing.yaml does not exist; check the path"),
    (["config", "validate"], "Missing argument 'FILE'; see 'cabruca config validate --help'"),
    (["config", "shw"], "No such command 'shw'"),
    (["config", "show", "nothing.yaml"], "configuration nothing.yaml does not exist"),
    (["evaluate", "--images", "x"], "Missing option '--checkpoint'; see 'cabruca evaluate --help'"),
]


@pytest.mark.parametrize(("args", "line"), USAGE)
def test_usage_errors(run: Run, args: list[str], line: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert one_line(result).startswith(line)


@pytest.mark.parametrize(
    ("assignments", "line"),
    [
        (
            ["data.batch_size"],
            "--set 'data.batch_size' is not KEY=VALUE, such as data.tile_size=256; write it so; see ",
        ),
        (["=3"], "--set '=3' is not KEY=VALUE"),
        (["data.bacth_size=3"], "data.bacth_size is not a known key; did you mean 'batch_size'?"),
        (["data.batch_size=x"], 'data.batch_size: "x" is not a whole number; write digits, such as 4'),
        (["data.batch_size=[1"], "value '[1', line 1: expected ',' or ']'"),
        (["device=cpu", "device=cuda"], "--set gives 'device' 2 times; give it once; see 'cabruca config validate"),
    ],
)
def test_set_errors(run: Run, config: str, assignments: list[str], line: str) -> None:
    result = run("config", "validate", config, *(part for text in assignments for part in ("--set", text)))
    assert result.exit_code == 2
    assert one_line(result).startswith(line)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        *[
            (kind("a\n  b; c"), 2, "a b; c")
            for kind in (ConfigError, DataError, CheckpointError, DeviceError, RunError)
        ],
        (CabrucaError("x; y"), 2, "x; y"),
        (TrainingDiverged("20 steps in a row were not finite; lower --lr"), 1, "20 steps in a row were not finite; "),
        (
            KeyboardInterrupt(),
            130,
            "interrupted; start it again, or go on with what was saved (",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "o/x.pth"),
            2,
            "o/x.pth: No space left on device; free space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "o"), 2, "o: Permission denied; free space, or mend the"),
        (
            OutOfMemoryError("CUDA out of memory. Tried to"),
            2,
            "the device ran out of memory: CUDA out of memory; take a",
        ),
    ],
)
def test_errors_of_a_run(
    run: Run, config: str, monkeypatch: pytest.MonkeyPatch, *, error: BaseException, code: int, line: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("cabruca.run.run_training", fail)
    result = run("train", "--config", config)
    assert result.exit_code == code
    assert result.stderr.strip().startswith(f"cabruca: error: {line}")
    assert result.stderr.strip().count("\n") == 0
    assert "Traceback" not in result.output


def test_no_secret_in_the_line(run: Run, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RunError("http://me:hunter2pw@host/x cannot be reached with 0123456789abcdef; start it")

    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setattr("cabruca.run.run_training", fail)
    result = run("train", "--config", config)
    assert "hunter2pw" not in result.stderr
    assert "0123456789abcdef" not in result.stderr
    assert "@host/x cannot be reached" in result.stderr


def test_a_fault_of_ours_keeps_its_traceback(run: Run, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("cabruca.run.run_training", fail)
    result = run("train", "--config", config)
    assert isinstance(result.exception, ZeroDivisionError)


def test_real_processes_say_one_line_and_exit_2(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data:\n  bacth_size: 3\n", encoding="utf-8")
    script = Path(sys.executable).with_name("cabruca")
    for command in ([sys.executable, "-m", "cabruca"], [str(script)]):
        done = subprocess.run([*command, "config", "validate", str(file)], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout == ""
        assert (
            done.stderr == f"cabruca: error: {file}: data.bacth_size is not a known key; did you mean 'batch_size'?\n"
        )
