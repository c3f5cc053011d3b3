"""Secrets are in nothing that a run writes: its folder, MLflow's data base and artifacts, W&B's files, the terminal."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import MLflowServer
from run_helpers import LineTask, line_config
from tracker_reading import mlflow_files, mlflow_runs, sqlite_uri

from cabruca.run import run_training
from cabruca.tracking.log import RunLog
from cabruca.tracking.secrets import hide
from cabruca.train.protocols import BaseCallback, Record

SECRETS = ("hunter2-in-uri", "key-of-wandb-0123456789abcdef0123456789abcdef", "tok-4242-of-hub", "pw-in-env-address")

SCRIPT = """
import sys, warnings
from run_helpers import LineTask, line_config
from cabruca.run import run_training
from cabruca.train.protocols import BaseCallback

class Talker(BaseCallback):
    def on_epoch(self, record):
        import logging, os
        logging.getLogger("cabruca").warning("signing in with %s", os.environ["HUB_TOKEN"])

class Breaks(LineTask):
    def train_batches(self, epoch, index_batches, runtime):
        if epoch == 2:
            raise RuntimeError("cannot reach " + sys.argv[2] + " with " + __import__("os").environ["HUB_TOKEN"])
        return super().train_batches(epoch, index_batches, runtime)

out, uri, task = sys.argv[1:]
tracking = {"mlflow": True, "mlflow_uri": uri, "wandb": True, "wandb_entity": None}
config = line_config(out, experiment_name=task, tracking=tracking)
kind = {"fine": LineTask, "breaks": Breaks}[task]
run_training(config, task_factory=kind, callbacks=[Talker()], json=True)
"""


def _train(out: Path, uri: str, task: str) -> subprocess.CompletedProcess[str]:
    environment = {n: value for n, value in os.environ.items() if not n.startswith(("MLFLOW_", "WANDB_"))}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "WANDB_MODE": "offline"}
    environment |= {"WANDB_API_KEY": SECRETS[1], "HUB_TOKEN": SECRETS[2]}
    environment |= {"DATABASE_URL": f"postgresql://me:{SECRETS[3]}@host/db"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(out), uri, task],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=out,
    )


def leaks(folder: Path) -> list[str]:
    """`file: secret` of every secret that a file below `folder` holds, in UTF-8 or UTF-16."""
    return [
        f"{path.relative_to(folder)}: {secret}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for secret in SECRETS
        if secret.encode() in (data := path.read_bytes()) or secret.encode("utf-16-le") in data
    ]


@pytest.mark.slow
def test_no_secret_is_in_anything_that_is_written(tmp_path: Path) -> None:
    """A user's password in the server's address, a key, a token in log lines and in the traceback of a failure."""
    (tmp_path / "server").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    server = MLflowServer(tmp_path / "server")
    try:
        server.wait()
        uri = server.uri.replace("http://", f"http://me:{SECRETS[0]}@")
        fine, broken = _train(out, uri, "fine"), _train(out, uri, "breaks")
    finally:
        server.kill()
    assert fine.returncode == 0, fine.stderr
    assert "RuntimeError: cannot reach" in broken.stderr  # Python's own; what follows is what we write
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"fine/config.yaml", "fine/train.log", "fine/checkpoints/checkpoint_best.pth"} <= written
    assert any(name.startswith("fine/wandb/offline-run") and name.endswith(".wandb") for name in written)
    log = (out / "breaks" / "train.log").read_text()
    assert "signing in with ***" in log
    assert "Traceback" in log
    assert "cannot reach http://me:***@127.0.0.1" in log
    assert "cannot reach http://me:***@127.0.0.1" in (out / "breaks" / "status.json").read_text()
    assert "switched off" not in log + fine.stderr  # the server was reached with that password
    assert leaks(out) == []
    assert leaks(tmp_path / "server") == []
    assert (tmp_path / "server" / "artifacts").is_dir()
    assert not any(secret in fine.stdout + fine.stderr for secret in SECRETS)


class Talker(BaseCallback):
    def on_epoch(self, record: Record) -> None:
        logging.getLogger("cabruca").warning("signing in with %s", SECRETS[2])


class Breaks(LineTask):
    def train_batches(self, epoch: int, index_batches: Any, runtime: Any) -> Any:
        if epoch == 2:
            raise RuntimeError(f"cannot reach http://me:{SECRETS[0]}@host with {SECRETS[2]}")
        return super().train_batches(epoch, index_batches, runtime)


def test_a_run_that_fails_writes_no_secret_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in this process, with the local data base: log, traceback, status, history, checkpoints, artifacts."""
    for name in [n for n in os.environ if n.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HUB_TOKEN", SECRETS[2])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracking = {"mlflow": True, "mlflow_uri": f"http://me:{SECRETS[0]}@host", "wandb_entity": "forest"}
    config = line_config(tmp_path, experiment_name="a", tracking=tracking)
    with pytest.raises(RuntimeError, match="cannot reach"):
        run_training(config, task_factory=Breaks, callbacks=[Talker()], quiet=True)
    assert "cannot reach http://me:***@host with ***" in (tmp_path / "a" / "train.log").read_text()
    assert "cannot reach http://me:***@host with ***" in (tmp_path / "a" / "status.json").read_text()
    (run,) = mlflow_runs(sqlite_uri(tmp_path))
    assert run.data.params["tracking.mlflow_uri"] == "http://me:***@host"
    assert "train.log" in mlflow_files(sqlite_uri(tmp_path), run)
    assert leaks(tmp_path) == []


def test_a_leak_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search finds what a log without its formatter holds."""
    monkeypatch.setenv("HUB_TOKEN", SECRETS[2])
    monkeypatch.setattr("cabruca.tracking.secrets.hide", lambda text: text)
    log = RunLog(tmp_path / "train.log")
    log.open()
    logging.getLogger("cabruca").info("signing in with %s", SECRETS[2])
    log.close()
    assert leaks(tmp_path) == [f"train.log: {SECRETS[2]}"]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("POST to http://me:hunter2@host:5000/api failed", "POST to http://me:***@host:5000/api failed"),
        ("https://host/x?api_key=abc&n=1", "https://host/x?api_key=***&n=1"),
        ("the key abcdefgh was refused", "the key *** was refused"),
        ("p%40ss-word and p@ss-word", "*** and ***"),
        ("admin and 1 stay words", "admin and 1 stay words"),
        ("see /run/secrets/token", "see /run/secrets/token"),
    ],
)
def test_hide(text: str, hidden: str) -> None:
    environment = {
        "WANDB_API_KEY": "abcdefgh",
        "PASSWORD": "admin",
        "SOME_TOKEN": "1",
        "GITHUB_TOKEN_FILE": "/run/secrets/token",
        "DATABASE_URL": "postgresql://me:p%40ss-word@host/db",
        "BROKEN": "://[@",
    }
    assert hide(text, environment) == hidden
