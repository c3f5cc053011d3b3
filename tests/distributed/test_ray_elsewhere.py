"""A run on a cluster that somebody else started: by its address, by Ray's client, by RAY_ADDRESS."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_line import alone, assert_same_weights, child, ended, many, weights

TESTS = Path(__file__).resolve().parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """Form of the address -> address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(TESTS / "support" / "ray_head.py"), str(port)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = (line for line in process.stdout if line.startswith("address "))
    yield {"host:port": next(lines).split()[1], "client": f"ray://127.0.0.1:{port}"}
    process.communicate(timeout=60)  # its input ends


@pytest.mark.parametrize("form", ["host:port", "client"])
def test_two_workers_by_address(head: dict[str, str], tmp_path: Path, form: str) -> None:
    config = many(tmp_path, training__num_epochs=2, distributed__address=head[form])
    code, output = ended(child(config))
    assert code == 0, output
    alone(config)
    assert_same_weights(weights(config), weights(config, "alone"))
    assert json.loads((tmp_path / "many" / "status.json").read_text())["state"] == "finished"


def test_one_worker_goes_where_ray_address_says(
    head: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head["host:port"])
    config = many(tmp_path, 1, training__num_epochs=1)
    code, output = ended(child(config))
    assert code == 0, output
    assert "workers: rank 0 " in (tmp_path / "many" / "train.log").read_text()


def test_more_than_the_cluster_has_is_refused_through_the_client(head: dict[str, str], tmp_path: Path) -> None:
    config = many(tmp_path, 4, distributed__address=head["client"])
    code, output = ended(child(config))
    assert code != 0
    assert "4 workers x 1 CPU asked, 2 CPU free: use --workers 2 or add nodes" in output
    assert not (tmp_path / "many").exists()
