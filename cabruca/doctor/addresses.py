"""Where trackers send to: is somebody there? Names and ports only; nothing is sent."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from cabruca.config.redact import redact
from cabruca.config.schema import Config
from cabruca.doctor.lines import Level, Line

TIMEOUT_S = 3.0
WANDB = "https://api.wandb.ai"


def address_lines(config: Config) -> list[Line]:
    """A line for MLflow's records and one for the W&B server; a warning only where the configuration uses it."""
    return [_mlflow(config), _wandb(config)]


def _mlflow(config: Config) -> Line:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.mlflow_uri
    if not uri:
        return Line("mlflow records", "ok", f"go to {Path(config.output_dir) / 'mlflow.db'} (SQLite)")
    shown = redact(uri)
    if uri.startswith("file:") or "://" not in uri:
        remedy = "set tracking.mlflow_uri to sqlite:///... or to a server's address"
        return Line("mlflow records", "warning", f"'{shown}' is a folder, which MLflow 3 does not write", remedy)
    if urlsplit(uri).scheme not in ("http", "https"):
        return Line("mlflow records", "ok", f"go to {shown}")
    remedy = "start the server, mend the address (MLFLOW_TRACKING_URI, tracking.mlflow_uri), or leave it out"
    return _reached("mlflow records", uri, _level(config.tracking.mlflow), remedy)


def _wandb(config: Config) -> Line:
    mode = os.environ.get("WANDB_MODE", "").lower()
    if mode in ("offline", "disabled"):
        return Line("wandb server", "ok", f"not asked (WANDB_MODE={mode}); runs are kept on the disk")
    uri = os.environ.get("WANDB_BASE_URL", WANDB)
    return _reached("wandb server", uri, _level(config.tracking.wandb), "export WANDB_MODE=offline, and sync later")


def _level(wanted: bool) -> Level:
    """A server that no run is going to use may be away."""
    return "warning" if wanted else "ok"


def _reached(topic: str, uri: str, if_not: Level, remedy: str) -> Line:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        with socket.create_connection((host, port), timeout=TIMEOUT_S):
            return Line(topic, "ok", f"{host}:{port} answers")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        where = redact(uri) if isinstance(error, ValueError) else f"{host}:{port}"
        unused = "" if if_not == "warning" else ", and the configuration does not use it"
        return Line(topic, if_not, f"{where} does not answer ({why}){unused}", remedy if if_not == "warning" else "")
