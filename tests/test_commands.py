"""Commands for people: quoted, and such that a fresh shell finds the program."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cabruca.commands import command


def test_a_bare_name_where_the_shell_finds_this_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert command("train", "--config", Path("a b.yaml")) == "cabruca train --config 'a b.yaml'"


def test_the_script_s_path_where_the_shell_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(Path(sys.executable).parent / "cabruca")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    line = command("--version")
    assert shlex.split(line) == [own, "--version"]
    said = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True, env={"PATH": "/bin"})
    assert said.stdout.startswith("cabruca ")
    other = tmp_path / "cabruca"  # another installation's must not be meant
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shlex.split(command("--version"))[0] == own


def test_this_python_where_there_is_no_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert shlex.split(command("demo")) == [str(tmp_path / "python"), "-m", "cabruca", "demo"]


def test_other_programs_of_the_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "tensorboard").write_text("#!/bin/sh\n")
    monkeypatch.setenv("PATH", "/bin")
    assert command("--logdir", "x", program="tensorboard") == f"{tmp_path}/tensorboard --logdir x"
