"""A run on a cluster of its own, on a machine where `ray start` left the address of another one behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_line import child, ended, many

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray looks for the last `ray start`; short, as sockets lie beside it."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    (folder / "ray").mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder / "ray" / "ray_current_cluster"
    shutil.rmtree(folder, ignore_errors=True)


def test_a_run_s_end_does_not_wait_for_a_cluster_that_is_gone(tmp_path: Path, left_behind: Path) -> None:
    left_behind.write_text("127.0.0.1:9")
    code, output = ended(child(many(tmp_path, training__num_epochs=2), sleep_s=0.4))
    assert code == 0, output
    (told,) = left_behind.parent.glob("session_2*/logs/train/ray-train-sys-controller-*.log")
    assert "Failed to stop PlacementGroupCleaner" not in told.read_text()
    assert "-> FINISHED" in told.read_text()
