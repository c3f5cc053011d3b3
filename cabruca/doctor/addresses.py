"""Where trackers send to: is somebody there? Names and ports only; nothing is sent."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from cabruca.config.redact import redact
from cabruca.config.schema import Config
from cabruca.doctor.asking import Job, ask
from cabruca.doctor.lines import Level, Line, Said

TIMEOUT_S = 3.0
RESOLVING_S = 15.0
"""A name server that is away is asked several times, and nothing but the end of the process stops that."""

WANDB = "https://api.wandb.ai"
DATABRICKS = ("databricks", "databricks-uc")


def address_lines(config: Config) -> list[Line]:
    """A line for MLflow's records and one for the W&B server; a warning only where the configuration uses it."""
    found = [_mlflow(config), _wandb(config)]
    answers = iter(ask([one for one in found if isinstance(one, Job)]))
    return [next(answers) if isinstance(one, Job) else one for one in found]


def _mlflow(config: Config) -> Line | Job:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.mlflow_uri
    topic = "mlflow records"
    if not uri:
        return Line(topic, "ok", f"go to {Path(config.output_dir) / 'mlflow.db'} (SQLite)")
    shown = redact(uri)
    if uri.startswith("file:") or ("://" not in uri and uri not in DATABRICKS):
        remedy = "set tracking.mlflow_uri to sqlite:///... or to a server's address"
        return Line(topic, "warning", f"'{shown}' is a folder, which MLflow 3 does not write", remedy)
    if not uri.lower().startswith(("http://", "https://")):
        return Line(topic, "ok", f"go to {shown}")
    remedy = "start the server, mend the address (MLFLOW_TRACKING_URI, tracking.mlflow_uri), or leave it out"
    return _server(topic, uri, config.tracking.mlflow, remedy)


def _wandb(config: Config) -> Line | Job:
    mode = os.environ.get("WANDB_MODE", "").lower()
    if mode in ("offline", "disabled"):
        return Line("wandb server", "ok", f"not asked (WANDB_MODE={mode}); runs are kept on the disk")
    uri = os.environ.get("WANDB_BASE_URL", WANDB)
    return _server("wandb server", uri, config.tracking.wandb, "export WANDB_MODE=offline, and sync later")


def _server(topic: str, uri: str, used: bool, remedy: str) -> Line | Job:
    """The question to put, in which there is no password; a line where `uri` is none.

    A server that no run is going to use may be away.
    """
    level: Level = "warning" if used else "ok"
    remedy = remedy if used else ""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        return Line(topic, level, f"'{redact(uri)}' is no address ({error})", remedy)
    asked = json.dumps({"host": host, "port": port, "used": used, "remedy": remedy})
    return Job(topic, f"{__name__}:reach", asked, RESOLVING_S, level, remedy)


def reach(argument: str) -> Said:
    """Probe: does somebody take a connection at `{host, port}`? `used`: an absent one is a warning."""
    asked = json.loads(argument)
    host, port, used = str(asked["host"]), int(asked["port"]), bool(asked["used"])
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S):
            return Said(f"{host}:{port} answers")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        unused = "" if used else ", and the configuration does not use it"
        return Said(f"{host}:{port} does not answer ({why}){unused}", "warning" if used else "ok", asked["remedy"])
