"""results.jsonl: nothing that was appended is lost, nothing that was torn is believed, and a replay gives the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cabruca.errors import RunError
from cabruca.tracking.study_events import Journal, events, read


def result(trial: int, epoch: int, value: float, **more: Any) -> dict[str, Any]:
    return {"event": "result", "trial": trial, "epoch": epoch, "step": 10 * epoch, "metrics": {"val/x": value}, **more}


STORY: list[dict[str, Any]] = [
    {"event": "asked", "trial": 0, "params": {"optimizer.lr": 0.1}},
    {"event": "asked", "trial": 1, "params": {"optimizer.lr": 0.2, "model.heads": ["instance"]}},
    {"event": "started", "trial": 0},
    result(0, 1, 0.5, elapsed_s=3.0, memory_mb=100.0),
    result(1, 1, 0.2, elapsed_s=4.0),
    {"event": "decided", "trial": 1, "epoch": 1, "decision": "stop", "rung": 1, "by": "asha"},
    {"event": "ended", "trial": 1, "state": "stopped", "epoch": 1, "values": [0.2], "reason": "asha at epoch 1"},
    result(0, 2, 0.7, elapsed_s=6.5, memory_mb=90.0),
    {"event": "note", "text": "a worker was lost"},
    {"event": "asked", "trial": 2, "params": {}, "retry_of": 1},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def written(path: Path, story: list[dict[str, Any]]) -> Journal:
    with Journal(path) as journal:
        for event in story:
            journal.append(event)
    return journal


def test_a_replay_gives_the_state_that_the_writer_had(path: Path) -> None:
    journal = written(path, STORY)
    assert read(path) == journal.state == Journal(path).state
    assert [e["event"] for e in events(path)] == [e["event"] for e in STORY]
    assert all(abs(e["time"] - time.time()) < 60 for e in events(path))


def test_what_the_events_come_to(path: Path) -> None:
    state = written(path, STORY).state
    first, second, third = (state.trials[n] for n in range(3))
    assert (first.state, first.epoch, first.elapsed_s, first.memory_mb) == ("running", 2, 6.5, 100.0)
    assert [(r.epoch, r.step, r.metrics) for r in first.results] == [(1, 10, {"val/x": 0.5}), (2, 20, {"val/x": 0.7})]
    assert (second.state, second.rung, second.by, second.values) == ("stopped", 1, "asha", (0.2,))
    assert (second.reason, second.params["model.heads"]) == ("asha at epoch 1", ["instance"])
    assert (third.state, third.retry_of) == ("waiting", 1)
    assert state.notes == ["a worker was lost"]
    assert (state.count(), state.count("running"), state.count("stopped", "waiting")) == (3, 1, 2)


def test_every_line_is_json_without_nan_and_on_disk_before_append_returns(path: Path) -> None:
    journal = Journal(path)
    for n, value in enumerate([0.5, float("nan"), float("inf")]):
        journal.append(result(0, n + 1, value) if n else {"event": "asked", "trial": 0, "params": {}})
        lines = path.read_text().splitlines()
        assert len(lines) == n + 1
        json.loads(lines[-1], parse_constant=pytest.fail)
    assert [r.metrics for r in journal.state.trials[0].results] == [{}, {}]


@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_a_torn_last_line_is_cut_off_and_appended_behind(path: Path, kept: int) -> None:
    whole = written(path, STORY[:4]).state
    torn = json.dumps({"time": 1.0, **STORY[4]}).encode()[:kept]
    with path.open("ab") as file:
        file.write(torn)
    assert read(path) == whole  # a reader takes no notice, and leaves the file alone
    assert path.read_bytes().endswith(torn)
    with Journal(path) as journal:
        assert journal.state == whole
        journal.append(STORY[4])
    assert [e["event"] for e in events(path)] == [e["event"] for e in STORY[:5]]


def test_a_line_in_the_middle_that_is_no_event_is_refused(path: Path) -> None:
    written(path, STORY[:3])
    lines = path.read_bytes().splitlines(keepends=True)
    for bad in (b"nonsense\n", b'{"event": "asked", "time": 1}\n', b"[1]\n", b'{"event": ["x"], "time": 1}\n'):
        path.write_bytes(lines[0] + bad + lines[1])
        for look in (read, Journal, lambda p: list(events(p))):
            with pytest.raises(RunError, match=r"line 2 is no event of a study \(.*\); restore the file"):
                look(path)


def test_an_event_without_what_its_kind_has_is_never_written(path: Path) -> None:
    journal = Journal(path)
    for bad in ({"event": "finished"}, {"trial": 1}, {"event": "result", "trial": 1, "epoch": 1}):
        with pytest.raises(ValueError, match="event"):
            journal.append(bad)
    assert path.read_bytes() == b""


def test_a_full_disk_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(path)
    journal.append(STORY[0])
    before = path.read_bytes()

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError, match=r"No space left on device\); free disk space"):
        journal.append(STORY[1])
    assert path.read_bytes() == before
    assert 1 not in journal.state.trials
    monkeypatch.undo()
    journal.append(STORY[1])
    assert read(path) == journal.state


def test_what_is_decided_on_is_on_the_disk_before(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, flushed = Journal(path), []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(path.read_bytes().splitlines()[-1]))
    for event in (STORY[0], {"event": "started", "trial": 0}, result(0, 1, 0.5), {"event": "note", "text": "hello"}):
        journal.append(event)
    assert [json.loads(line)["event"] for line in flushed] == ["asked", "result"]
    assert len(read(path).notes) == 1


def test_an_epoch_that_was_done_again_counts_once_as_it_came_last(path: Path) -> None:
    again = [STORY[0], result(0, 1, 0.5), result(0, 2, 0.6), result(0, 3, 0.9), result(0, 2, 0.61), result(0, 3, 0.7)]
    trial = written(path, again).state.trials[0]
    assert [(r.epoch, r.metrics["val/x"]) for r in trial.results] == [(1, 0.5), (2, 0.61), (3, 0.7)]


def test_an_interrupted_trial_is_taken_up_with_what_it_reported(path: Path) -> None:
    ended = {"event": "ended", "trial": 0, "state": "interrupted", "epoch": 2, "reason": "SIGTERM"}
    state = written(path, [*STORY[:4], ended]).state
    assert (state.trials[0].state, state.trials[0].reason) == ("interrupted", "SIGTERM")
    assert not state.trials[0].ended
    state = written(path, [{"event": "started", "trial": 0}]).state
    assert (state.trials[0].state, state.trials[0].reason, len(state.trials[0].results)) == ("running", "", 1)


def test_no_file_is_a_study_of_which_nothing_has_happened(path: Path) -> None:
    assert read(path).trials == {}
    assert not path.exists()


def test_reading_a_thousand_trials_is_quick(path: Path) -> None:
    line = json.dumps({"time": 1.0, **result(0, 1, 0.5)})
    asked = json.dumps({"time": 1.0, "event": "asked", "trial": 0, "params": {"optimizer.lr": 0.1}})
    text = []
    for number in range(1000):
        text.append(asked.replace('"trial": 0', f'"trial": {number}'))
        text += [
            line.replace('"trial": 0', f'"trial": {number}').replace('"epoch": 1', f'"epoch": {e}') for e in range(9)
        ]
    path.write_text("\n".join(text) + "\n")
    began = time.perf_counter()
    assert read(path).count() == 1000
    assert time.perf_counter() - began < 2.0  # 0.1 s on the machine it was written on


WRITER = """
import sys
from pathlib import Path
from cabruca.tracking.study_events import Journal
journal = Journal(Path(sys.argv[1]))
journal.append({"event": "asked", "trial": 0, "params": {}})
epoch = 0
while True:
    epoch += 1
    journal.append({"event": "result", "trial": 0, "epoch": epoch, "step": epoch, "metrics": {"val/x": 0.5}})
    print(epoch, flush=True)
"""


def test_what_was_acknowledged_before_sigkill_is_there(path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = 0
    for line in writer.stdout:
        said = int(line)
        if said >= 20:
            break
    writer.send_signal(signal.SIGKILL)
    said = max([said, *(int(line) for line in writer.stdout.read().split())])
    writer.wait()
    with Journal(path) as journal:
        assert journal.state.trials[0].epoch >= said
        journal.append({"event": "note", "text": "on"})
    assert len(read(path).trials[0].results) >= said
