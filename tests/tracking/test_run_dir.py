"""The run's folder: who may have it, and what a dead run looks like."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import DEAD_AFTER_S, StatusFile, is_alive, read_status


def test_create_makes_the_folder_under_the_name(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "stage1_256")
    assert run.path == tmp_path / "stage1_256"
    assert run.name == "stage1_256"
    assert run.checkpoints.is_dir()


def test_a_taken_folder_is_refused_with_both_ways_out(tmp_path: Path) -> None:
    RunDir.create(tmp_path, "a")
    with pytest.raises(RunError, match=r"another --experiment-name.*--experiment-name a --resume auto") as error:
        RunDir.create(tmp_path, "a")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("trace", ["config.yaml", "metrics.jsonl", "training_history.json", "status.json"])
def test_every_trace_of_a_run_counts(tmp_path: Path, trace: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / trace).write_text("")
    with pytest.raises(RunError):
        RunDir.create(tmp_path, "a")


def test_an_unrelated_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    assert RunDir.create(tmp_path, "a").holds_run


def test_without_a_name_the_folder_is_the_time_and_two_in_one_second_differ(tmp_path: Path) -> None:
    names = {RunDir.create(tmp_path).name for _ in range(3)}
    assert len(names) == 3
    assert all(re.fullmatch(r"cabruca_\d{8}_\d{6}", name) for name in names)


def test_of_many_that_ask_at_once_one_gets_the_folder(tmp_path: Path) -> None:
    won, lost = [], []
    gate = threading.Barrier(8)

    def ask() -> None:
        gate.wait()
        try:
            won.append(RunDir.create(tmp_path, "same"))
        except RunError as error:
            lost.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be made .*--output-dir"):
        RunDir.create(tmp_path / "file", "a")


def test_the_run_of_a_checkpoint_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir.create(tmp_path, "a")
    run.latest.write_text("")
    monkeypatch.chdir(tmp_path / "a")
    for given in (run.latest, Path("checkpoints/checkpoint_latest.pth")):
        found = RunDir.of_checkpoint(given)
        assert found is not None
        assert (found.name, found.path.resolve()) == ("a", run.path.resolve())
    monkeypatch.chdir(run.checkpoints)
    found = RunDir.of_checkpoint("checkpoint_latest.pth")
    assert found is not None
    assert found.name == "a"
    assert RunDir.of_checkpoint(tmp_path / "elsewhere.pth") is None


def _status(**changes: object) -> dict[str, object]:
    row = {"state": "running", "pid": os.getppid(), "host": socket.gethostname(), "heartbeat": time.time()}
    return {**row, "epoch": 1, "message": "", **changes}


def _dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_alive_means_a_process_that_is_there_with_a_fresh_heartbeat() -> None:
    assert is_alive(_status())
    assert is_alive(_status(state="starting"))
    assert is_alive(_status(host="elsewhere", pid=_dead_pid()))  # we cannot look there: the heartbeat decides
    assert not is_alive(_status(pid=_dead_pid()))
    assert not is_alive(_status(heartbeat=time.time() - DEAD_AFTER_S - 1))
    assert not is_alive(_status(state="finished"))
    assert not is_alive(_status(pid="?"))
    assert not is_alive({})
    assert not is_alive(None)


def test_a_killed_run_whose_parent_does_not_ask_is_dead() -> None:
    """As in a container whose first process is no init: the dead stay listed."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert is_alive(_status(pid=child.pid))
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and still there
        assert psutil.pid_exists(child.pid)
        assert not is_alive(_status(pid=child.pid))
    finally:
        child.kill()
        child.wait()


def test_a_run_that_is_going_on_cannot_be_reopened(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "a")
    run.status.write_text(json.dumps(_status()))
    with pytest.raises(RunError, match=rf"still going on \(process {os.getppid()} on "):
        run.reopen()
    run.status.write_text(json.dumps(_status(pid=_dead_pid())))
    assert run.reopen() == run


def test_the_heartbeat_goes_on_while_the_main_thread_is_busy(tmp_path: Path) -> None:
    status = StatusFile(tmp_path / "status.json", interval_s=0.02)
    status.set("running", epoch=3, message="validating")
    status.start()
    first = read_status(status.path)
    beats = set()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:  # the main thread does other things; a reader always finds a whole file
        now = read_status(status.path)
        assert now is not None
        beats.add(now["heartbeat"])
    status.close()
    assert first is not None
    assert len(beats) > 3
    last = read_status(status.path)
    assert last is not None
    assert set(last) == {"state", "pid", "host", "heartbeat", "epoch", "message"}
    assert (last["state"], last["epoch"], last["pid"]) == ("running", 3, os.getpid())
    time.sleep(0.1)
    assert read_status(status.path) == last


def test_a_status_that_cannot_be_written_warns_once_and_does_not_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    status = StatusFile(tmp_path / "gone" / "status.json")
    status.set("running")
    status.set("finished")
    assert [r.levelname for r in caplog.records] == ["WARNING"]
