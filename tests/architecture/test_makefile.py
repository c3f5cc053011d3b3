"""`make` finds a Python, says what is missing, and installs once."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

Make = Callable[..., subprocess.CompletedProcess[str]]

GOOD = """#!/bin/sh
echo "$0 $*" >> calls
case "$*" in *"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python;; esac
"""
BARE = """#!/bin/sh
case "$*" in *"import ensurepip"*) exit 1;; *version_info\\[:2*) echo 3.12;; esac
"""
OLD = """#!/bin/sh
exit 1
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


@pytest.fixture
def make(clone: Path) -> Make:
    """Runs make where only the given pretended Pythons and the shell's own tools are found."""
    bin_dir = clone / "bin"
    bin_dir.mkdir()
    for tool in ("make", "sh", "mkdir", "cp", "touch", "rm", "cat"):
        (bin_dir / tool).symlink_to(str(shutil.which(tool)))

    def run(*targets: str, **pythons: str) -> subprocess.CompletedProcess[str]:
        for name, text in pythons.items():
            file = bin_dir / name.replace("_", ".")
            file.write_text(text, encoding="utf-8")
            file.chmod(0o755)
        environment = {**os.environ, "PATH": str(bin_dir), "MAKEFLAGS": ""}
        command = [str(bin_dir / "make"), *targets]
        return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)

    return run


STAMP = ".venv/.installed"


def test_no_python_is_said(make: Make, clone: Path) -> None:
    done = make(STAMP, python3=OLD)
    assert done.returncode != 0
    assert "no Python >= 3.11 found (tried python3.13, python3.12, python3.11, python3); install one" in done.stderr
    assert not (clone / ".venv").exists()


def test_python_without_ensurepip_is_said(make: Make, clone: Path) -> None:
    done = make(STAMP, python3=BARE)
    assert done.returncode != 0
    assert "python3 cannot make virtual environments (no ensurepip)" in done.stderr
    assert "sudo apt install python3.12-venv" in done.stderr
    assert not (clone / ".venv").exists()


def test_the_first_python_that_works_is_taken(make: Make) -> None:
    done = make(STAMP, python3_13=BARE, python3_12=GOOD, python3=OLD)
    assert done.returncode == 0, done.stderr
    assert "making .venv with python3.12" in done.stdout


def test_the_second_call_is_instant_until_pyproject_changes(make: Make, clone: Path) -> None:
    make(STAMP, python3=GOOD)
    installs = (clone / "calls").read_text().count("pip install")
    assert installs == 1
    make(STAMP)
    assert (clone / "calls").read_text().count("pip install") == 1
    later = time.time() + 10
    os.utime(clone / "pyproject.toml", (later, later))
    make(STAMP)
    assert (clone / "calls").read_text().count("pip install") == 2
    assert (clone / "calls").read_text().count("-m venv") == 1


def test_ci_runs_make_test_and_nothing_else() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert lines == ["exec make test"]


def test_what_make_test_runs_ends_with_pytest() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--assume-old=.venv/.installed", "test"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    commands = [line for line in done.stdout.splitlines() if line.startswith(".venv/bin/")]
    assert [c.removeprefix(".venv/bin/") for c in commands[-4:]] == [
        "ruff check .",
        "ruff format --check .",
        "mypy",
        "python -m pytest -n auto --maxprocesses 4 --dist loadscope",
    ]
