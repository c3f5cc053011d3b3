"""What local.sh keeps between two calls: it ends what it started, nothing else, in bounded time. Ray is a stand-in."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from two_nodes import LOCAL, free_ports

PYTHON = f"""#!/usr/bin/env bash
# the real one, but for Ray: a node is a process that is there until it is told to end
case "$*" in
  *" start "*)
    echo "$*" >>"$FAKE/log"
    touch "$FAKE/node_$BASHPID"
    if [ -n "${{FAKE_DEAF:-}}" ]; then trap '' TERM; fi
    while true; do sleep 0.1; done ;;
  *scripts.scripts\\ status) for n in "$FAKE"/node_*; do [ ! -e "$n" ] || echo " 1 node_x"; done ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


class Local:
    """local.sh with a state folder, ports and a Python of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fake = folder / "cluster", folder
        (folder / "python").write_text(PYTHON)
        (folder / "python").chmod(0o755)
        port, dashboard, metrics, _ = free_ports(4)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "CABRUCA_"))}
        self.environment |= {
            "CABRUCA_CLUSTER_DIR": str(self.folder),
            "CABRUCA_CLUSTER_PORT": str(port),
            "CABRUCA_DASHBOARD_PORT": str(dashboard),
            "CABRUCA_METRICS_PORT": str(metrics),
            "CABRUCA_STOP_TIMEOUT_S": "1",
            "PYTHON": str(folder / "python"),
            "FAKE": str(folder),
        }

    def run(self, *words: str, code: int = 0) -> str:
        given, environment = [str(LOCAL), *words], self.environment
        done = subprocess.run(given, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def pid(self, node: str) -> int:
        return int((self.folder / f"{node}.pid").read_text().split()[0])

    def forget_nodes(self) -> None:
        for path in self.fake.glob("node_*"):
            path.unlink()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    found = Local(tmp_path)
    yield found
    for process in psutil.process_iter(["cmdline"]):
        if str(tmp_path / "python") in (process.info["cmdline"] or []):
            process.kill()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_start_and_stop(local: Local) -> None:
    assert "2 nodes at 127.0.0.1" in local.run("start")
    head, second = local.pid("head"), local.pid("second")
    assert "a cluster is there already" in local.run("start", code=2)
    assert local.run("stop") == "stopped\n"
    assert gone(head)
    assert gone(second)
    assert list(local.folder.glob("*.pid")) == []


def test_a_pid_that_is_another_s_by_now_is_not_killed(local: Local) -> None:
    """The machine was restarted, or the nodes were killed, and the number was given again."""
    local.run("start")
    for node in ("head", "second"):
        os.kill(local.pid(node), signal.SIGKILL)
    other = subprocess.Popen(["sleep", "60"])
    try:
        for node in ("head", "second"):
            path = local.folder / f"{node}.pid"
            path.write_text(path.read_text().replace(str(local.pid(node)), str(other.pid), 1))
        local.forget_nodes()
        assert "2 nodes at" in local.run("start"), "it is no cluster either"
        head = local.folder / "head.pid"
        kept = head.read_text()
        head.write_text(kept.replace(str(local.pid("head")), str(other.pid), 1))
        assert local.run("stop") == "stopped\n"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_node_that_does_not_end_is_killed_and_said(local: Local) -> None:
    local.environment["FAKE_DEAF"] = "1"
    local.run("start")
    head, second = local.pid("head"), local.pid("second")
    began = time.monotonic()
    said = local.run("stop")
    assert time.monotonic() - began < 15
    assert f"the second node (process {second}) did not end in 1 s; it is killed" in said
    assert f"the head node (process {head}) did not end in 1 s; it is killed" in said
    assert gone(head)
    assert gone(second)


def test_the_second_node_s_folder_is_ours_and_goes_with_it(local: Local) -> None:
    """Not a name in /tmp that others can foresee; found through the state folder, also by a start after a kill."""
    local.run("start")
    own = (local.folder / "second").resolve()
    assert f" --temp-dir={own} " in (local.fake / "log").read_text()
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert local.environment["CABRUCA_CLUSTER_PORT"] not in own.name
    for node in ("head", "second"):
        os.kill(local.pid(node), signal.SIGKILL)
    local.forget_nodes()
    local.run("start")
    assert not own.exists(), "what a killed cluster left goes when the next one starts"
    own = (local.folder / "second").resolve()
    (own / "session").mkdir()
    local.run("stop")
    assert not own.exists()
    assert not (local.folder / "second").is_symlink()
