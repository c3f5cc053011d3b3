"""What the monitor imports and how it is started: no torch, no Ray, this machine alone, one line where it cannot."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cabruca.cli import monitor as command
from cabruca.cli import serving
from cabruca.cli import ui as ui_commands
from cabruca.cli.main import main


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_no_page_imports_torch_ray_or_the_network_s_libraries() -> None:
    code = """
import importlib, pkgutil, sys
import cabruca.monitor
names = [m.name for m in pkgutil.walk_packages(cabruca.monitor.__path__, "cabruca.monitor.")]
for name in names:
    if not name.endswith(".app"):
        importlib.import_module(name)
print(len(names), [name for name in ("torch", "ray", "timm", "mlflow", "wandb") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, _, heavy = done.stdout.strip().partition(" ")
    assert int(count) > 15
    assert heavy == "[]"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `become` was asked, in the place of doing it."""
    asked: list[Any] = []

    def become(words: Any, environment: Any = None) -> int:
        asked.append((words, environment))
        return 0

    monkeypatch.setattr(command, "become", become)
    monkeypatch.setattr(ui_commands, "become", become)
    return asked


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_monitor_is_bound_to_this_machine_and_tells_nobody(started: list[Any], tmp_path: Path) -> None:
    port = free_port()
    result = run("monitor", "--outputs", tmp_path, "--port", port)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"monitor of {tmp_path}: http://127.0.0.1:{port}  (Ctrl-C stops it)")
    ((words, environment),) = started
    for flag in (
        *("--server.address=127.0.0.1", "--browser.gatherUsageStats=false", "--server.fileWatcherType=none"),
        *("--server.enableXsrfProtection=true", "--server.enableCORS=true", f"--server.port={port}"),
    ):
        assert flag in words
    assert Path(words[3]).is_file()
    assert environment["CABRUCA_MONITOR_OUTPUTS"] == str(tmp_path)
    assert environment["STREAMLIT_SERVER_ALLOWED_HOSTS"].split() == ["127.0.0.1", "localhost"]


def test_the_first_page_needs_neither_matplotlib_nor_optuna_nor_gdal() -> None:
    code = """
import sys
import cabruca.monitor.views.runs
print([name for name in ("matplotlib", "optuna", "rasterio", "cabruca.study_report") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_flag_is_one_that_streamlit_has() -> None:
    from streamlit import config

    known = config.get_config_options()
    assert [key for key in (*command.SETTINGS, *command.COLOURS) if key not in known] == []


def test_a_missing_extra_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(serving.importlib.util, "find_spec", lambda name: None if name == "streamlit" else real(name))
    result = run("monitor", "--outputs", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == (
        "cabruca: error: cabruca monitor needs streamlit, not installed here; pip install 'cabruca[monitor]'\n"
    )


def test_a_taken_port_and_a_file_are_one_line(started: list[Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = run("monitor", "--outputs", tmp_path, "--port", port)
    assert result.exit_code == 2
    assert f"port {port} of 127.0.0.1 cannot be used" in result.stderr
    (tmp_path / "file").touch()
    assert "is a file" in run("monitor", "--outputs", tmp_path / "file").stderr
    assert started == []


def test_a_mistyped_folder_is_refused_and_one_without_runs_is_not(
    started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("monitor", "--outputs", "ouptuts", "--port", free_port())
    assert result.exit_code == 2
    assert "--outputs ouptuts is not there; correct it, make it (mkdir) " in result.stderr
    assert "Traceback" not in result.stderr
    assert started == []
    (tmp_path / "empty").mkdir()
    for words in (["--outputs", "empty"], [], ["--outputs", "./outputs"]):
        assert run("monitor", *words, "--port", free_port()).exit_code == 0
    folders = [Path(environment["CABRUCA_MONITOR_OUTPUTS"]).name for _, environment in started]
    assert folders == ["empty", "outputs", "outputs"]


def test_ui_starts_each_on_the_right_store(started: list[Any], tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    events = tmp_path / "one" / "tensorboard"
    events.mkdir(parents=True)
    (tmp_path / "one" / "status.json").write_text("{}")
    (events / "events.out.tfevents.1").touch()
    study = tmp_path / "studies" / "s"
    study.mkdir(parents=True)
    for name in ("study.yaml", "base_config.yaml", "optuna.db"):
        (study / name).touch()
    for name, store in (("mlflow", tmp_path / "mlflow.db"), ("tensorboard", tmp_path), ("optuna", study / "optuna.db")):
        port = free_port()
        result = run("ui", name, "--outputs", tmp_path, "--port", port)
        assert result.exit_code == 0, result.output
        assert result.stdout.endswith(f"http://127.0.0.1:{port}  (Ctrl-C stops it)\n")
        words = started[-1][0]
        assert words[words.index("--host") + 1] == "127.0.0.1"
        assert any(word.endswith(str(store)) for word in words)
    run("ui", "tensorboard", "--outputs", tmp_path, "--run", "one", "--port", free_port())
    assert str(tmp_path / "one") in started[-1][0]


def test_ui_without_a_store_is_one_line(started: list[Any], tmp_path: Path) -> None:
    for name, said in (
        ("mlflow", "no run has logged to MLflow"),
        ("tensorboard", "has no TensorBoard files"),
        ("optuna", "begin one with cabruca tune"),
    ):
        result = run("ui", name, "--outputs", tmp_path)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert said in result.stderr
    assert started == []
