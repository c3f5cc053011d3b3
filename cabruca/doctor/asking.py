"""Asks probes in child processes: whatever a probe does, crash, hang or lie, the asker goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.doctor.lines import Level, Line

POLL_S = 0.05
LINGER_S = 2.0
"""For a child to end after its last answer; a library's thread can keep it."""


@dataclass(frozen=True)
class Job:
    """One question.

    Attributes:
        topic: for the line. probe: `module:function`; it gets `argument` and returns a `Said`.
        timeout_s: it is given up after that long. if_broken: level of the line when it fails, crashes or hangs.
        remedy: said then.
    """

    topic: str
    probe: str
    argument: str = ""
    timeout_s: float = 60.0
    if_broken: Level = "error"
    remedy: str = ""


def ask(jobs: Sequence[Job]) -> list[Line]:
    """A line for each job. They share one child process as long as it lives; after a crash the rest get a new one."""
    lines: list[Line] = []
    while len(lines) < len(jobs):
        lines += _ask_one_child(jobs[len(lines) :])
    return lines


def _ask_one_child(jobs: Sequence[Job]) -> list[Line]:
    """Lines of the jobs that this child settled: all, or those up to the one that broke it."""
    with tempfile.TemporaryDirectory(prefix="cabruca-doctor-") as folder:
        answers, errors = Path(folder) / "answers.jsonl", Path(folder) / "stderr"
        answers.touch()
        plain = json.dumps([{"probe": job.probe, "argument": job.argument} for job in jobs])
        command = [sys.executable, "-m", "cabruca.doctor.child", str(answers), plain]
        with errors.open("wb") as sink:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
            try:
                hung = _wait(child, jobs, answers)
            finally:
                _kill(child)
        found = _read(answers)
        lines = [_line(job, found[n]) for n, job in enumerate(jobs) if n in found]
        if len(lines) < len(jobs):  # the first without an answer is the one that broke the child
            job = jobs[len(lines)]
            lines.append(_broken(job, f"no answer within {job.timeout_s:g} s" if hung else _death(child, errors)))
        return lines


def _wait(child: subprocess.Popen[bytes], jobs: Sequence[Job], answers: Path) -> bool:
    """Until the child has ended (False) or a job has had its time (True); the clock starts anew with each answer."""
    done, since = 0, time.monotonic()
    while child.poll() is None:
        settled = len(_read(answers))
        if settled > done:
            done, since = settled, time.monotonic()
        if done < len(jobs) and time.monotonic() - since > jobs[done].timeout_s:
            return True
        if done == len(jobs) and time.monotonic() - since > LINGER_S:
            return False
        time.sleep(POLL_S)
    return False


def _kill(child: subprocess.Popen[bytes]) -> None:
    """The child and what it started (a compiler, say)."""
    if child.poll() is None:
        with contextlib.suppress(OSError):
            if os.name == "posix":
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a dead network disk cannot be killed
        child.wait(LINGER_S)


def _read(answers: Path) -> dict[int, dict[str, Any]]:
    """Job number -> its answer; half a line, of a child that died while writing, is passed over."""
    found: dict[int, dict[str, Any]] = {}
    for line in answers.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if "began" not in row:
                found[int(row["number"])] = row
    return found


def _line(job: Job, row: dict[str, Any]) -> Line:
    if "failed" in row:
        return _broken(job, str(row["failed"]))
    return Line(job.topic, row["level"], row["text"], row["remedy"])


def _broken(job: Job, what: str) -> Line:
    return Line(job.topic, job.if_broken, what, job.remedy)


def _death(child: subprocess.Popen[bytes], errors: Path) -> str:
    code = child.returncode or 0
    how = f"crashed with {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{how} ({said[-1][:200]})" if said and code > 0 else how
