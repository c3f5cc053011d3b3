"""LocalReporter: what is on disk when, and what a signal does."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import line_config, rows

from cabruca.config.schema import Config
from cabruca.errors import RunError
from cabruca.tracking import reporter as reporter_module
from cabruca.tracking.reporter import LocalReporter
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.signals import SignalWatch
from cabruca.tracking.status import read_status
from cabruca.train import checkpoint
from cabruca.train.protocols import Record, Reporter, Save, State, StopTraining, TrainResult


def _state(**changes: Any) -> State:
    return {"model": {"w": torch.ones(2)}, "epoch": 1, "step": 4, "stage": 0, **changes}


def _save(state: State | None = None, **flags: bool) -> Save:
    return Save(state=lambda: _state() if state is None else state, **flags)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return line_config(tmp_path)


@pytest.fixture
def reporter(tmp_path: Path, config: Config) -> Iterator[LocalReporter]:
    made = LocalReporter(RunDir.create(tmp_path, "run"), config)
    yield made
    made.finish(None, None)


def _status(reporter: LocalReporter) -> dict[str, Any]:
    status = read_status(reporter.run_dir.status)
    assert status is not None
    return status


def test_it_is_a_reporter(reporter: LocalReporter) -> None:
    assert isinstance(reporter, Reporter)


def test_an_epoch_is_on_disk_when_report_returns(reporter: LocalReporter) -> None:
    assert reporter.resume() is None
    assert _status(reporter)["state"] == "running"
    reporter.report(Record(1, 4, {"val/mAP_50": 0.5}), _save(best=True, numbered=True))
    run = reporter.run_dir
    for path in (run.latest, run.best, run.numbered(1)):
        assert checkpoint.is_intact(path)
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert (sidecar["epoch"], sidecar["step"], sidecar["metric"]) == (1, 4, 0.5)
    assert json.loads(run.history.read_text())["val/mAP_50"] == [0.5]
    assert _status(reporter)["epoch"] == 1


def test_best_keeps_its_content_when_latest_goes_on(reporter: LocalReporter) -> None:
    reporter.resume()
    reporter.report(Record(1, 4, {}), _save(best=True))
    reporter.report(Record(2, 8, {}), _save(_state(epoch=2, step=8)))
    assert checkpoint.read(reporter.run_dir.best)["epoch"] == 1
    assert checkpoint.read(reporter.run_dir.latest)["epoch"] == 2
    assert not reporter.run_dir.numbered(2).exists()


def test_only_records_with_numbers_become_rows(reporter: LocalReporter) -> None:
    reporter.resume()
    assert reporter.heartbeat(Record(0, 1, {})) == "go"
    assert reporter.heartbeat(Record(0, 2, {"train/total_loss": 1.0})) == "go"
    assert [row["step"] for row in rows(reporter.run_dir.metrics)] == [2]


def test_the_middle_of_an_epoch_is_saved_every_checkpoint_minutes(tmp_path: Path, config: Config) -> None:
    often = config.model_copy(update={"training": config.training.model_copy(update={"checkpoint_minutes": 1e-9})})
    never = config.model_copy(update={"training": config.training.model_copy(update={"checkpoint_minutes": 0.0})})
    answers = {}
    for name, chosen in (("often", often), ("default", config), ("never", never)):
        made = LocalReporter(RunDir.create(tmp_path, name), chosen)
        made.resume()
        answers[name] = made.heartbeat(Record(0, 1, {}))
        made.finish(None, None)
    assert answers == {"often": "save", "default": "go", "never": "go"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_after_the_step_and_saves(reporter: LocalReporter, number: int) -> None:
    before = signal.getsignal(number)
    reporter.resume()
    assert reporter.heartbeat(Record(0, 1, {})) == "go"
    os.kill(os.getpid(), number)
    assert reporter.heartbeat(Record(0, 2, {})) == "stop"
    with pytest.raises(StopTraining, match=signal.Signals(number).name) as stop:
        reporter.save(Record(0, 2, {}), _save(_state(epoch=0, step=2)))
    assert stop.value.state == "interrupted"
    assert reporter.signal_number == number
    assert checkpoint.read(reporter.run_dir.latest)["step"] == 2
    assert _status(reporter)["state"] == "interrupted"  # whoever sent it may kill before the trackers have ended
    reporter.finish(TrainResult("interrupted", 0, 2, None, None, {}, stop.value.reason), None)
    assert signal.getsignal(number) is before
    assert _status(reporter)["state"] == "interrupted"


def test_a_signal_during_validation_stops_at_the_epoch_s_end(reporter: LocalReporter) -> None:
    reporter.resume()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopTraining):
        reporter.report(Record(1, 4, {"val/mAP_50": 0.1}), _save())
    assert checkpoint.is_intact(reporter.run_dir.latest)
    assert [row["epoch"] for row in rows(reporter.run_dir.metrics)] == [1]


def test_the_second_signal_ends_the_process_at_once() -> None:
    left: list[int] = []
    told: list[str] = []
    watch = SignalWatch(on_second=lambda: told.append("told"), leave=left.append)
    watch.install()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (watch.number, left) == (signal.SIGTERM, [])
        os.kill(os.getpid(), signal.SIGINT)
        assert left == [130]
        assert told == ["told"]
        assert watch.number == signal.SIGTERM
    finally:
        watch.restore()


def test_a_loader_process_leaves_the_signal_to_its_parent() -> None:
    left: list[int] = []
    watch = SignalWatch(on_second=lambda: None, leave=left.append)
    watch.install()
    try:
        watch._pid = os.getpid() + 1  # as it is in a forked child
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert watch.number is None
        assert left == []
    finally:
        watch.restore()


def test_outside_the_main_thread_signals_stay_as_they_are(tmp_path: Path, config: Config) -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def work() -> None:
        made = LocalReporter(RunDir.create(tmp_path, "thread"), config)
        made.resume()
        seen.append(signal.getsignal(signal.SIGTERM))
        made.finish(None, None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_exception_leaves_its_message_in_status_and_log(reporter: LocalReporter) -> None:
    reporter.resume()
    reporter.finish(None, RuntimeError("out of luck\nand more"))
    status = _status(reporter)
    assert status["state"] == "failed"
    assert status["message"] == "RuntimeError: out of luck"
    assert "RuntimeError: out of luck" in reporter.run_dir.log.read_text()


def test_finish_counts_once(reporter: LocalReporter) -> None:
    reporter.resume()
    reporter.finish(TrainResult("finished", 3, 12, None, None, {}, "done"), None)
    reporter.finish(None, RuntimeError("later"))
    assert _status(reporter)["state"] == "finished"


def test_the_log_has_our_messages_and_is_let_go(reporter: LocalReporter, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("cabruca")
    before = (list(logger.handlers), logger.level)
    reporter.resume()
    logging.getLogger("cabruca.anything").info("a fact")
    logging.getLogger("cabruca.anything").warning("a doubt")
    reporter.finish(None, None)
    text = reporter.run_dir.log.read_text()
    assert "a fact" in text
    assert "a doubt" in text
    assert capsys.readouterr().err == "warning: a doubt\n"
    assert (list(logger.handlers), logger.level) == before


def test_no_secret_reaches_a_checkpoint(reporter: LocalReporter) -> None:
    reporter.resume()
    secret = {"tracking": {"mlflow_uri": "https://me:hunter2@host/"}}
    reporter.report(Record(1, 4, {}), _save(_state(config=secret)))
    stored = checkpoint.read(reporter.run_dir.latest)["config"]
    assert "hunter2" not in json.dumps(stored)
    assert secret["tracking"]["mlflow_uri"].startswith("https://me:hunter2")  # the run's own stays


def test_a_full_disk_is_one_line(reporter: LocalReporter, monkeypatch: pytest.MonkeyPatch) -> None:
    reporter.resume()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reporter_module.History, "append_epoch", full)
    with pytest.raises(RunError, match=r"No space left on device.*free disk space") as error:
        reporter.report(Record(1, 4, {}), _save())
    assert "\n" not in str(error.value)
