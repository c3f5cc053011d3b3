"""Fixtures of the trackers' tests."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_mlflow_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment without MLFLOW_*, and as it was before afterwards: trackers set variables of their own."""
    for name in [n for n in os.environ if n.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    before = set(os.environ)
    yield
    for name in set(os.environ) - before:
        os.environ.pop(name)


@pytest.fixture
def mute_server() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
