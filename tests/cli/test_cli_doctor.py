"""`cabruca doctor` as a command: exit codes, JSON, and a machine where torch itself is broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cabruca.cli.main import main
from cabruca.config.schema import Config
from cabruca.doctor import diagnosis
from cabruca.doctor.lines import Level, Line, Report


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *args])


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("warning", 0), ("error", 2)])
def test_exit_code_and_lines(monkeypatch: pytest.MonkeyPatch, level: Level, code: int) -> None:
    report = Report((Line("disk", "ok", "9 GiB"), Line("bf16", level, "slow", "leave it off")))
    monkeypatch.setattr(diagnosis, "diagnose", lambda config: report)
    result = run()
    assert result.exit_code == code
    assert result.stdout.splitlines()[0] == "OK      disk: 9 GiB"
    assert result.stdout.splitlines()[1].endswith(" bf16: slow; leave it off")
    assert result.stderr == ""
    result = run("--json")
    assert result.exit_code == code
    assert json.loads(result.stdout) == report.to_dict()


def test_a_torch_that_crashes_is_an_error_and_all_else_is_answered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("import ctypes\nctypes.string_at(0)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(diagnosis, "_library_jobs", lambda config: ())
    report = diagnosis.diagnose(Config())
    found = {line.topic: line for line in report.lines}
    assert not report.ok
    assert (found["devices"].level, found["devices"].text) == ("error", "crashed with SIGSEGV")
    assert found["devices"].remedy == "install torch anew"
    assert found["operator nms"].level == "error"
    assert found["torch.compile"].level == "warning"
    assert found["disk"].level in ("ok", "warning")


def test_doctor_itself_imports_nothing_that_may_be_broken() -> None:
    code = (
        "import sys, cabruca.cli.doctor, cabruca.doctor.diagnosis, cabruca.config.load\n"
        "print([n for n in ('torch', 'torchvision', 'rasterio', 'timm', 'mlflow', 'wandb', 'ray') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_this_machine_can_train() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cabruca", "doctor", "--json"], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout
    report = json.loads(done.stdout)
    topics = [line["topic"] for line in report["lines"]]
    assert {
        "versions",
        "devices",
        "operator nms",
        "operator roi_align",
        "bf16",
        "torch.compile",
        "pictures",
        "ray",
    } <= {*topics}
    assert len(topics) == len(set(topics))
