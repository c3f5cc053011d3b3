"""What people and programs read while a run goes on."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console
from run_helpers import LineTask, line_config

from cabruca.config.schema import Config
from cabruca.run import run_training
from cabruca.tracking.progress import JsonProgress, LiveProgress, PlainProgress, arithmetic, duration, progress_of
from cabruca.train.protocols import Record, RunInfo, TrainResult

RESULT = TrainResult("finished", 100, 900, 0.5, 7, {}, "finished 100 epochs")


def _info(resumed: int = 0) -> RunInfo:
    return RunInfo(100, 9, 4, 8, "cuda", "bf16", 12_340_000, resumed, resumed * 9, {})


def _record(epoch: int = 99, **changes: float) -> Record:
    metrics = {
        "train/total_loss": 12345.678,
        "train/loss_instance": 1.25,
        "train/loss_semantic": 0.5,
        "val/total_loss": 0.000123456,
        "val/mAP_50": 0.123456,
        "lr/backbone": 1e-5,
        "lr/heads": 1.234e-4,
        "time/images_per_s": 12345.6,
        "time/data_wait_share": 1.0,
        "time/epoch_s": 60.0,
        "memory/rss_mb": 1e5,
    }
    return Record(epoch, epoch * 9, {**metrics, **changes})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return line_config(tmp_path)


def test_every_line_fits_80_columns_at_its_widest(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    plain = PlainProgress(config, out)
    plain.on_start(_info())
    plain.on_epoch(_record(**{"val/mAP_50": 0.98765}))
    plain.on_epoch(_record(100))
    header, first, second = (line for line in out.getvalue().splitlines() if "ETA" in line or "/100" in line)
    assert len(header) == len(first) == len(second) <= 80
    assert max(map(len, out.getvalue().splitlines())) <= 80
    for word in ("99/100", "1.2e+04", "0.00012", "0.9877", "0.9877@99", "1.2e-04", "12346", "100%", "97.7G"):
        assert word in first
    assert "0.1235 " in second
    assert "0.9877@99" in second  # the best stays


def test_a_lower_best_where_the_metric_is_minimised(tmp_path: Path) -> None:
    config = line_config(tmp_path, training__monitor_metric="val/total_loss", training__minimize_metric=True)
    out = io.StringIO()
    plain = PlainProgress(config, out)
    plain.on_start(_info())
    for epoch, value in ((1, 3.0), (2, 2.0), (3, 4.0)):
        plain.on_epoch(_record(epoch, **{"val/total_loss": value}))
    assert out.getvalue().splitlines()[-1].split()[4] == "2@2"


def test_a_resumed_run_still_knows_its_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = run_training(line_config(tmp_path, experiment_name="a"), task_factory=LineTask, quiet=True)
    more = line_config(tmp_path, experiment_name="a", training__num_epochs=5, validation__frequency=5)
    run_training(more, resume="auto", task_factory=LineTask)
    line = next(line for line in capsys.readouterr().out.splitlines() if " 4/5" in line)  # not validated
    assert f" {first.best:.4g}@3 " in line


def test_an_epoch_without_validation_shows_the_last_value(config: Config) -> None:
    out = io.StringIO()
    plain = PlainProgress(config, out)
    plain.on_start(_info())
    plain.on_epoch(_record(1, **{"time/data_wait_share": 0.0}))
    plain.on_epoch(Record(2, 18, {"train/total_loss": 1.0, "lr/heads": 0.1}))
    line = out.getvalue().splitlines()[-1]
    assert "0.1235@1" in line
    assert " nan" in line or "-" in line


def test_a_wide_terminal_shows_the_heads_losses(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    out = io.StringIO()
    plain = PlainProgress(config, out)
    plain.on_start(_info())
    plain.on_epoch(_record())
    assert "instance" in out.getvalue()
    assert "semantic" in out.getvalue()


@pytest.mark.parametrize(("share", "seconds", "said"), [(0.21, 60, True), (0.2, 60, False), (0.9, 1, False)])
def test_the_hint_is_given_once_above_a_fifth(config: Config, share: float, seconds: float, said: bool) -> None:
    out = io.StringIO()
    plain = PlainProgress(config, out)
    plain.on_start(_info())
    for epoch in (1, 2, 3):
        plain.on_epoch(_record(epoch, **{"time/data_wait_share": share, "time/epoch_s": seconds}))
    assert out.getvalue().count("raise data.num_workers") == int(said)


def test_json_is_one_strict_object_a_line(config: Config) -> None:
    out = io.StringIO()
    writer = JsonProgress(config, out)
    writer.on_start(_info(resumed=3))
    writer.on_step(Record(3, 28, {}))  # not a logged step
    writer.on_step(Record(3, 30, {"train/total_loss": 1.0}))
    writer.on_epoch(Record(4, 36, {"val/mAP": math.nan, "val/total_loss": 2.0}))
    writer.on_end(RESULT, None)

    def refuse(text: str) -> None:
        raise ValueError(text)

    found = [json.loads(line, parse_constant=refuse) for line in out.getvalue().splitlines()]
    assert [row["event"] for row in found] == ["start", "step", "epoch", "end"]
    assert (found[0]["steps_per_epoch"], found[0]["resumed_epoch"]) == (9, 3)
    assert found[2] == {"event": "epoch", "epoch": 4, "step": 36, "val/mAP": None, "val/total_loss": 2.0}
    assert (found[3]["state"], found[3]["best"]) == ("finished", 0.5)


def test_json_says_how_a_run_failed(config: Config) -> None:
    out = io.StringIO()
    JsonProgress(config, out).on_end(None, RuntimeError("broken"))
    assert json.loads(out.getvalue()) == {"event": "end", "state": "failed", "message": "broken"}


def test_the_terminal_and_the_flags_choose(config: Config) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert type(progress_of(config, json=True, stream=Terminal())) is JsonProgress
    assert type(progress_of(config, stream=io.StringIO())) is PlainProgress
    assert type(progress_of(config, quiet=True, stream=Terminal())) is PlainProgress


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_gets_a_bar_and_no_colour_where_it_wants_none(
    config: Config, no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    live = LiveProgress(config, Console(file=out, force_terminal=True, width=80, color_system="standard"))
    live.on_start(_info())
    live.on_step(Record(0, 5, {"train/total_loss": 1.5, "train/loss_instance": 1.0}))
    live.on_step(Record(0, 6, {}))  # not a logged step: the losses stay
    live._bar.refresh()
    live.on_epoch(_record(1))
    live.on_end(RESULT, None)
    text = out.getvalue()
    assert "1/100 total 1.5 instance 1" in text
    assert "6/9" in text
    assert "0.1235@1" in text
    assert "\x1b[?25h" in text  # the cursor is shown again
    colours = ("\x1b[3", "\x1b[9", "\x1b[38")
    assert any(c in text for c in colours) is not no_color


def test_quiet_prints_nothing_but_logs_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_training(line_config(tmp_path, experiment_name="a"), task_factory=LineTask, quiet=True)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
    assert "3/3" in (tmp_path / "a" / "train.log").read_text()
    assert "finished 3 epochs" in (tmp_path / "a" / "train.log").read_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m00"), (3599, "59m59"), (3600, "1h00"), (90000, "1d01h"), (math.nan, "-")],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
    assert len(text) <= 6


def test_the_arithmetic_is_told() -> None:
    assert arithmetic(_info(resumed=2)) == (
        "100 epochs x 9 steps of 8 pictures (4 x 2), 12.34 M parameters, cuda bf16, from step 18 on"
    )
