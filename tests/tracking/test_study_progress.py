"""What is seen while a study runs: lines in a pipe, JSON for programs, a board on a terminal."""

from __future__ import annotations

import io
import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from drawn_study import METRIC, drawn_study, result, write_study
from rich.console import Console

from cabruca.config.study import Study, load_study
from cabruca.tracking.study_events import Journal, events
from cabruca.tracking.study_progress import JsonStudy, LiveStudy, PlainStudy, StudyWatcher, study_progress_of
from cabruca.tracking.study_state import StudyState, TrialState

END = SimpleNamespace(state="finished", best=2, message="all trials have ended", exit_code=0)


def replay(study: Study, folder: Path, watcher: StudyWatcher) -> StudyState:
    """Tell a watcher of a drawn study's events, as its driver does."""
    _, study_dir = drawn_study(folder / "drawn")
    journal = Journal(folder / "again.jsonl")
    for event in events(study_dir.results):
        watcher.on_event(journal.append(event), journal.state)
    return journal.state


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return load_study(write_study(tmp_path))


def test_a_pipe_gets_a_line_an_event_and_the_board_at_the_end(study: Study, tmp_path: Path) -> None:
    out = io.StringIO()
    watcher = study_progress_of(study, stream=out)
    assert type(watcher) is PlainStudy
    replay(study, tmp_path, watcher)
    watcher.on_end(END)
    lines = [re.sub(r"^ +\d+s  ", "", line) for line in out.getvalue().splitlines()]
    assert lines[0] == "trial 0    asked   optimizer.lr=0.0005 model.backbone=tf_efficientnet_lite0"
    assert lines[1] == f"trial 0    epoch 1   {METRIC} 0.31   best 0.31@1"
    assert lines[9] == f"trial 0    epoch 9   {METRIC} 0.612   best 0.615@8"
    assert lines[10] == f"trial 0    finished after 9 epochs, best {METRIC} 0.615 at epoch 8"
    assert "trial 1    asha stops it at rung 1: it is not among the best there" in lines
    failed = next(line for line in lines if " failed after" in line)
    assert failed.endswith(": TrainingDiverged: 20 steps without finite gradients")
    assert "\x1b" not in out.getvalue()
    assert lines[-10].split()[:3] == ["#", "trial", "state"]


def test_quiet_says_nothing(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watcher = study_progress_of(study, quiet=True)
    replay(study, tmp_path, watcher)
    watcher.on_end(END)
    assert capsys.readouterr().out == ""


def test_a_trial_that_goes_on_and_one_that_is_asked_again_say_so(study: Study, tmp_path: Path) -> None:
    out = io.StringIO()
    watcher = PlainStudy(study, out)
    journal = Journal(tmp_path / "j.jsonl")

    def tell(event: Mapping[str, Any]) -> None:
        watcher.on_event(journal.append(event), journal.state)

    tell({"event": "asked", "trial": 0, "params": {"optimizer.lr": 1e-3}})
    tell({"event": "started", "trial": 0})
    tell(result(0, 1, {METRIC: math.nan}))
    tell({"event": "started", "trial": 0})
    tell({"event": "note", "text": "trial 0: its process died"})
    tell({"event": "ended", "trial": 0, "state": "failed", "epoch": 1, "values": None, "reason": "killed"})
    tell({"event": "asked", "trial": 1, "params": {"optimizer.lr": 1e-3}, "retry_of": 0})
    assert [" ".join(line.split()[1:]) for line in out.getvalue().splitlines()] == [
        "trial 0 asked optimizer.lr=0.001",
        f"trial 0 epoch 1 {METRIC} -",
        "trial 0 goes on after epoch 1",
        "trial 0: its process died",
        "trial 0 failed after 1 epoch: killed",
        "trial 1 asked, trial 0 again optimizer.lr=0.001",
    ]


def test_json_is_the_journal_then_the_end(study: Study, tmp_path: Path) -> None:
    out = io.StringIO()
    watcher = study_progress_of(study, json=True, stream=out)
    assert isinstance(watcher, JsonStudy)
    replay(study, tmp_path, watcher)
    watcher.on_end(END)
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert found[:-1] == list(events(tmp_path / "again.jsonl"))
    assert found[-1] == {"event": "end", **vars(END)}


def test_a_terminal_gets_a_board_that_is_drawn_again_and_the_whole_one_at_the_end(study: Study, tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=12, color_system=None)
    watcher = LiveStudy(study, console)
    state = replay(study, tmp_path, watcher)
    deadline = time.monotonic() + 10
    while "and 3 more trials" not in out.getvalue() and time.monotonic() < deadline:
        time.sleep(0.05)
    live = out.getvalue()
    assert "and 3 more trials; leaderboard.csv has all" in live  # 12 lines hold 5 rows
    assert "trial 4    failed after 1 epoch" in live
    watcher.on_end(END)
    watcher.close()
    last = out.getvalue()[len(live) :]
    assert last.rstrip().endswith("mobilenetv3_larg")
    assert sum(f" {trial.state} " in line for trial in state.trials.values() for line in last.splitlines()) >= 8
    assert out.getvalue().count("\x1b[?25l") == out.getvalue().count("\x1b[?25h"), "the cursor is there again"


def test_a_board_whose_state_changes_while_it_is_drawn_keeps_the_last_one(study: Study, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40)
    watcher = LiveStudy(study, console)
    state = replay(study, tmp_path, watcher)
    before = watcher._draw()

    class Changing(dict[int, Any]):
        def values(self) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

    kept, state.trials = state.trials, Changing(state.trials)
    watcher.on_event({"event": "note", "text": "x"}, state)
    assert watcher._draw().renderables[-1] is before.renderables[-1]
    state.trials = kept
    assert watcher._draw().renderables[-1] is not before.renderables[-1]
    watcher.close()


def test_a_watcher_costs_the_driver_little_also_with_a_thousand_trials(study: Study, tmp_path: Path) -> None:
    """The board is made by the thread that draws it: an event costs the driver the same in a long study."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=40)
    watcher = LiveStudy(study, console)
    state = StudyState()
    spent = []
    for number in range(1000):
        event = {"event": "asked", "trial": number, "params": {"optimizer.lr": 1e-3}, "time": 0.0}
        state.trials[number] = TrialState(number, {"optimizer.lr": 1e-3})
        began = time.thread_time()
        watcher.on_event(event, state)
        spent.append(time.thread_time() - began)
    watcher._live.stop()
    assert sorted(spent[-200:])[100] < 5e-4
