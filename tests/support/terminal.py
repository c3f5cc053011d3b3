"""A program on a pseudo terminal of a given width, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;[\d;]+)(?:;\d+)*m")
"""Escape sequences that set a colour."""

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_])")


def on_terminal(
    words: Sequence[str], *, columns: int = 80, rows: int = 24, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Exit code and everything that was written, escape sequences included; stdin, stdout and stderr are the terminal.

    Args:
        environment: added to this process's, without NO_COLOR, COLUMNS and CI.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    unset = ("NO_COLOR", "COLUMNS", "LINES", "CI", "FORCE_COLOR", "TTY_COMPATIBLE")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    root = str(Path(__file__).resolve().parents[2])
    env |= {"TERM": "xterm-256color", "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **(environment or {})}
    process = subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower, env=env, close_fds=True)
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # what Linux says when the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(leader)
    return process.wait(timeout=120), seen.decode(errors="replace")


def lines_of(seen: str) -> list[str]:
    """The lines without escape sequences; a line that was drawn over again is there each time."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", _ESCAPE.sub("", seen)) if line.strip()]
