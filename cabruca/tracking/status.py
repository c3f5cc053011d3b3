"""status.json: is this run alive? Written by the run, read by the monitor and by whoever wants to resume."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Literal

import psutil

from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.secrets import hide

State = Literal["starting", "running", "finished", "stopped", "failed", "interrupted"]

HEARTBEAT_S = 3.0
"""Seconds between heartbeats."""

DEAD_AFTER_S = 60.0
"""A heartbeat older than this is that of a dead run (twenty beats: a loaded machine or a slow disk is not a death)."""

_log = logging.getLogger("cabruca.tracking")


class StatusFile:
    """Writes `{state, pid, host, heartbeat, epoch, message}`; `heartbeat` is in seconds since 1970.

    A daemon thread renews the heartbeat, because a validation or a slow first batch can be minutes without a
    step. It says that the process lives, not that it gets on: for that there are the rows of metrics.jsonl.
    """

    def __init__(self, path: Path, *, interval_s: float = HEARTBEAT_S) -> None:
        self.path = path
        self._interval_s = interval_s
        self._fields: dict[str, Any] = {"state": "starting", "epoch": 0, "message": ""}
        # re-entrant: a signal handler of the main thread may write while the main thread is writing
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    def start(self) -> None:
        """Write the file and keep its heartbeat fresh until `close`."""
        self._write()
        self._thread = threading.Thread(target=self._beat, name="cabruca-heartbeat", daemon=True)
        self._thread.start()

    def set(self, state: State | None = None, *, epoch: int | None = None, message: str | None = None) -> None:
        """Change what is given and write."""
        given = {"state": state, "epoch": epoch, "message": message}
        with self._lock:
            self._fields.update({k: v for k, v in given.items() if v is not None})
            self._write()

    def close(self) -> None:
        """No more heartbeats; the file keeps the last state."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _beat(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._write()

    def _write(self) -> None:
        with self._lock:
            row = {
                "state": self._fields["state"],
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "heartbeat": time.time(),
                "epoch": self._fields["epoch"],
                "message": hide(self._fields["message"]),
            }
            try:
                write_atomic(self.path, to_json(row) + "\n", durable=False)
            except OSError as error:  # a full disk must not end training by way of a heartbeat
                if not self._warned:
                    self._warned = True
                    _log.warning("%s cannot be written (%s); the monitor will take this run for dead", self.path, error)


def read_status(path: Path) -> dict[str, Any] | None:
    """The fields of a status.json, or None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def is_alive(status: dict[str, Any] | None, *, now: float | None = None) -> bool:
    """Whether another process is still at work on the run that this status describes."""
    if status is None or status.get("state") not in ("starting", "running"):
        return False
    try:
        age_s = (time.time() if now is None else now) - float(status["heartbeat"])
        pid, host = int(status["pid"]), str(status["host"])
    except (KeyError, TypeError, ValueError):
        return False
    if age_s > DEAD_AFTER_S:
        return False
    # on this machine we can look: a run killed a second ago is dead, however fresh its heartbeat
    return host != socket.gethostname() or (pid != os.getpid() and _is_at_work(pid))


def _is_at_work(pid: int) -> bool:
    """Whether a process of this machine runs; a killed one whose parent never asks (in a container: process 1, which
    may be any program) is listed to the end of days and does not."""
    try:
        return bool(psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # it is there and is not ours to look at
        return True
