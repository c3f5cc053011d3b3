"""A whole run from the outside: its folder, signals, kills, dry runs; with a line fit in place of the network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import LineTask, child_command, line_config, rows, same_state

from cabruca.config.schema import Config
from cabruca.errors import ConfigError, DeviceError
from cabruca.run import make_runtime, run_training
from cabruca.tracking.status import read_status
from cabruca.train import checkpoint
from cabruca.train.protocols import BaseCallback, Record, TrainResult


def _latest(run: Path) -> dict[str, Any]:
    state = checkpoint.read(run / "checkpoints" / "checkpoint_latest.pth")
    del state["config"]  # names its output_dir
    return state


def _status(run: Path) -> dict[str, Any]:
    status = read_status(run / "status.json")
    assert status is not None
    return status


def _points(run: Path) -> list[tuple[Any, ...]]:
    """Rows without what tells the time."""
    keep = ("stage", "epoch", "step", "train/total_loss", "val/mAP_50")
    return [tuple(row.get(k) for k in keep) for row in rows(run / "metrics.jsonl")]


class At(BaseCallback):
    """Does something once, after a given step."""

    def __init__(self, step: int, do: Callable[[], object]) -> None:
        self.step, self.do = step, do

    def on_step(self, record: Record) -> None:
        if record.step == self.step:
            self.do()


def test_the_folder_is_the_contract(tmp_path: Path) -> None:
    config = line_config(tmp_path, experiment_name="a", tracking={}, training__save_frequency=2)
    result = run_training(config, task_factory=LineTask, quiet=True)
    run = tmp_path / "a"
    files = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    events = {f for f in files if f.startswith("tensorboard/")}
    assert len(events) == 1
    names = ("checkpoint_best", "checkpoint_latest", "checkpoint_epoch_2")
    assert files - events == {
        *("config.yaml", "environment.json", "status.json", "train.log", "metrics.jsonl", "training_history.json"),
        *(f"checkpoints/{name}.{suffix}" for name in names for suffix in ("pth", "json")),
        *("plots/results.png", "predictions/val_line_1.png", "MODEL_CARD.md"),
    }
    status = _status(run)
    assert set(status) == {"state", "pid", "host", "heartbeat", "epoch", "message"}
    assert (status["state"], status["epoch"], status["message"]) == ("finished", 3, result.message)
    history = json.loads((run / "training_history.json").read_text())
    assert history["epoch"] == [1, 2, 3]
    assert history["val/undefined"] == [None] * 3
    best = json.loads((run / "checkpoints" / "checkpoint_best.json").read_text())
    assert best["metric"] == max(history["val/mAP_50"]) == result.best


def test_a_failed_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINE_DIE", "1")
    with pytest.raises(RuntimeError, match="the line broke"):
        run_training(line_config(tmp_path, experiment_name="a"), task_factory=LineTask, quiet=True)
    status = _status(tmp_path / "a")
    assert (status["state"], status["epoch"]) == ("failed", 1)
    assert status["message"] == "RuntimeError: the line broke"
    assert "second line of the message" in (tmp_path / "a" / "train.log").read_text()
    monkeypatch.delenv("LINE_DIE")
    result = run_training(line_config(tmp_path, experiment_name="a"), resume="auto", task_factory=LineTask, quiet=True)
    assert (result.epochs, _status(tmp_path / "a")["state"]) == (3, "finished")


def test_a_device_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(DeviceError):
        run_training(line_config(tmp_path, device="cuda"), task_factory=LineTask)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [9, 12])  # in the middle of an epoch, and at its last step
def test_a_signal_saves_and_the_resumed_run_is_the_undisturbed_one(
    tmp_path: Path, number: signal.Signals, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = line_config(tmp_path / "whole", experiment_name="a")
    run_training(whole, task_factory=LineTask, quiet=True)
    config = line_config(tmp_path / "cut", experiment_name="a")
    result = run_training(
        config, task_factory=LineTask, quiet=True, callbacks=[At(step, lambda: os.kill(os.getpid(), number))]
    )
    run = tmp_path / "cut" / "a"
    assert (result.state, result.exit_code, result.step) == ("interrupted", 128 + number, step)
    assert _status(run)["state"] == "interrupted"
    said = capsys.readouterr().err
    assert f"cabruca train --config {run}/config.yaml --resume {run}/checkpoints/checkpoint_latest.pth" in said
    result = run_training(config, resume="auto", task_factory=LineTask, quiet=True)
    assert (result.state, result.exit_code) == ("finished", 0)
    assert same_state(_latest(run), _latest(tmp_path / "whole" / "a"))
    assert _points(run) == _points(tmp_path / "whole" / "a")


def _start(tmp_path: Path, config: Config, *options: str, **environment: str) -> subprocess.Popen[str]:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config.model_dump(mode="json", exclude_unset=True)))
    return subprocess.Popen(
        child_command(file, *options), stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the child does not get on"
        time.sleep(0.02)


def test_sigterm_to_a_real_process_exits_143_and_resumes_exactly(tmp_path: Path) -> None:
    config = line_config(tmp_path / "cut", experiment_name="a", training__num_epochs=4)
    run = tmp_path / "cut" / "a"
    process = _start(tmp_path, config, LINE_SLEEP_S="0.05")
    try:
        _wait_for(lambda: (run / "metrics.jsonl").is_file() and len(rows(run / "metrics.jsonl")) >= 2, process)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143
    assert "cabruca train --config" in said.split("go on with: ")[1]
    assert "Traceback" not in said
    assert _status(run)["state"] == "interrupted"
    assert 0 < _latest(run)["step"] < 24
    run_training(config, resume="auto", task_factory=LineTask, quiet=True)
    whole = line_config(tmp_path / "whole", experiment_name="a", training__num_epochs=4)
    run_training(whole, task_factory=LineTask, quiet=True)
    assert same_state(_latest(run), _latest(tmp_path / "whole" / "a"))
    assert _points(run) == _points(tmp_path / "whole" / "a")


def test_kill_9_in_a_checkpoint_write_leaves_an_intact_latest(tmp_path: Path) -> None:
    config = line_config(tmp_path / "cut", experiment_name="a", training__num_epochs=4)
    run, marker = tmp_path / "cut" / "a", tmp_path / "half"
    process = _start(tmp_path, config, LINE_HANG_MARKER=str(marker))
    try:
        _wait_for(marker.is_file, process)  # half of the third checkpoint is on disk
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"time": 12, "stage": 0, "ep')  # and, say, half a row
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert _status(run)["state"] == "running"
    assert checkpoint.is_intact(run / "checkpoints" / "checkpoint_latest.pth")
    assert _latest(run)["epoch"] == 2
    result = run_training(config, resume="auto", task_factory=LineTask, quiet=True)
    assert result.epochs == 4
    whole = line_config(tmp_path / "whole", experiment_name="a", training__num_epochs=4)
    run_training(whole, task_factory=LineTask, quiet=True)
    assert same_state(_latest(run), _latest(tmp_path / "whole" / "a"))
    assert _points(run) == _points(tmp_path / "whole" / "a")
    litter = [p.name for p in (run / "checkpoints").iterdir() if p.name.startswith(".")]
    assert litter == []


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_tells_the_cost_and_leaves_nothing(
    tmp_path: Path, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    config = line_config(tmp_path, training__num_epochs=50, training__gradient_accumulation_steps=2)
    result = run_training(config, task_factory=LineTask, dry_run=True, json=as_json)
    assert list(tmp_path.iterdir()) == []
    assert (result.exit_code, result.step, result.epochs) == (0, 2, 0)
    assert "val/mAP_50" in result.metrics
    out = capsys.readouterr().out
    if as_json:
        facts = json.loads(out)
        assert (facts["pictures"], facts["effective_batch"], facts["steps_per_epoch"], facts["epochs"]) == (
            22,
            8,
            3,
            50,
        )
        assert facts["step_s"] > 0
        assert facts["memory_mb"] > 10
        expected = 150 * facts["step_s"] + 50 * facts["validation_s"]
        assert facts["total_s"] == pytest.approx(expected)
    else:
        assert "22 pictures an epoch / (batch_size 4 x accumulation 2 = 8) = 3 optimizer steps" in out
        assert "s a step" in out
        assert "nothing was written" in out


def test_a_dry_run_measures_a_step_that_is_warm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first step takes 0.4 s longer; no epoch is. A step may have 40 pictures, and 22 are there."""

    class Cold(LineTask):
        def train_batches(self, epoch: int, index_batches: Any, runtime: Any) -> Any:
            time.sleep(0.4)
            assert [len(batch) for batch in index_batches] == [40, 40]
            assert all(0 <= i < 22 for batch in index_batches for i in batch)
            return super().train_batches(epoch, index_batches, runtime)

    config = line_config(tmp_path, data__batch_size=40)
    run_training(config, task_factory=Cold, dry_run=True, json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["first_step_s"] > 0.4
    assert facts["step_s"] < 0.2
    assert facts["total_s"] < 0.4 * facts["epochs"]


def test_a_dry_run_finds_a_wrong_monitored_metric(tmp_path: Path) -> None:
    config = line_config(tmp_path, training__monitor_metric="val/mAP50", validation__frequency=10)
    with pytest.raises(ConfigError, match="did you mean 'val/mAP_50'"):
        run_training(config, task_factory=LineTask, dry_run=True)


def test_json_goes_to_stdout_and_people_s_lines_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_training(line_config(tmp_path, experiment_name="a"), task_factory=LineTask, json=True)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["event"] for row in found if row["event"] != "step"] == ["start", "epoch", "epoch", "epoch", "end"]


def test_one_place_decides_on_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    monkeypatch.setattr("cabruca.runtime.available_cores", lambda: 4)
    runtime = make_runtime(line_config(tmp_path, data__num_workers=1))
    assert (set_to, runtime.loaders, str(runtime.device), runtime.world_size) == ([3], 1, "cpu", 1)


def test_a_run_gives_back_a_result(tmp_path: Path) -> None:
    result = run_training(line_config(tmp_path, experiment_name="a"), task_factory=LineTask, quiet=True)
    assert isinstance(result, TrainResult)
    assert (result.state, result.epochs, result.step, result.exit_code) == ("finished", 3, 18, 0)
