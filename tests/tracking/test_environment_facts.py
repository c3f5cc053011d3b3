"""environment.json: enough to repeat a run, nothing secret."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cabruca.tracking.environment import cpu_model, describe_environment, git_state
from cabruca.tracking.files import plain, to_json, write_atomic


def test_the_facts_are_there_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2-key")
    monkeypatch.setattr(sys, "argv", ["cabruca", "--set", "token=hunter2-flag"])
    facts = describe_environment("cpu")
    assert facts["packages"]["torch"] == torch.__version__.split("+")[0]
    assert facts["threads"] == torch.get_num_threads()
    assert facts["python"] == sys.version.split()[0]
    assert facts["device"] == "cpu"
    assert facts["cores"] >= 1
    assert facts["memory_mb"] > 100
    assert facts["cpu"] == cpu_model() != ""
    assert "hunter2" not in to_json(facts)


def test_the_commit_is_that_of_our_own_checkout_only(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)
        return done.stdout.decode().strip()

    assert git_state(tmp_path.resolve()) is None
    git("init")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "one")
    assert git_state(tmp_path.resolve()) == {"commit": git("rev-parse", "HEAD"), "changed": False}
    (tmp_path / "a.py").write_text("2")
    state = git_state(tmp_path.resolve())
    assert state is not None
    assert state["changed"] is True
    inside = tmp_path / "venv" / "site-packages"  # a package installed inside somebody's repository
    inside.mkdir(parents=True)
    assert git_state(inside.resolve()) is None


def test_plain_makes_strict_json() -> None:
    value = {"a": float("nan"), "b": (1, float("-inf")), 3: torch.tensor(0.5), "d": Path("x"), "e": True}
    assert plain(value) == {"a": None, "b": [1, None], "3": 0.5, "d": "x", "e": True}
    assert json.loads(to_json(value)) == plain(value)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
