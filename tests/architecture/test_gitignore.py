"""README's steps leave no untracked files in a clone, and what ignores them hides nothing of the project."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LEFT = ("data/farm1/config.yaml", "farm.yaml", "study.yaml", "other.gpkg", "other.html", "other.csv", "outputs/farm1")


def git(*words: str) -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a clone, or no git")
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr  # 1: none is ignored
    return done.stdout.splitlines()


def test_what_the_readme_makes_is_ignored() -> None:
    assert git("check-ignore", *LEFT) == list(LEFT)


def test_nothing_of_the_project_is_ignored() -> None:
    assert git("ls-files", "--cached", "--ignored", "--exclude-standard") == []
