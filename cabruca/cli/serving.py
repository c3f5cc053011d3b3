"""Starting another program that serves pages on this machine alone: `cabruca monitor`, `cabruca ui`."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

import click

from cabruca.errors import RunError

HOST = "127.0.0.1"
"""The only address that anything is served on."""

PORT = click.IntRange(1024, 65535)


def need(extra: str, what: str, *modules: str) -> None:
    """Look whether the libraries of an extra are installed, without importing them.

    Raises:
        RunError: one is missing; names the extra.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise RunError(f"{what} needs {' and '.join(missing)}, not installed here; pip install 'cabruca[{extra}]'")


def refuse_taken(port: int) -> None:
    """Raises:
    RunError: something listens on the port already.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise RunError(
                f"port {port} of {HOST} cannot be used ({error.strerror}); stop what listens there, or give another "
                f"--port, such as {port + 1}"
            ) from error


def become(words: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Turn this process into that program, so that Ctrl-C and every signal reach it and nothing is left behind.

    Args:
        words: arguments of this Python. environment: what is added to the environment.

    Returns:
        The program's exit code, where the system cannot replace a process (Windows).
    """
    everything = {**os.environ, **(environment or {})}
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        return subprocess.run([sys.executable, *words], env=everything, check=False).returncode
    os.execve(sys.executable, [sys.executable, *words], everything)
    raise AssertionError("unreachable: the process is another program now")
