"""MLflow reached through its client alone: addresses and ids are given, no global state is kept or believed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from cabruca.commands import command
from cabruca.config.schema import Config
from cabruca.tracking.files import to_json
from cabruca.tracking.secrets import hide
from cabruca.train.protocols import NOTICE

PARENT_TAG = "mlflow.parentRunId"
"""MLflow's own: its pages show a run with it under that run."""

STUDY_TAG, TRIAL_TAG, REPEAT_TAG = "cabruca.study_id", "cabruca.trial", "cabruca.repeat"
"""On a trial's run: the first two; on that of its repetition with another seed: the first and the last."""

SEARCHED = "search."
"""In front of the names of what a trial's sampler chose; no section of the configuration is called so."""

_TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"

QUICK = {
    # a server that does not answer is given up after seconds, not after MLflow's own many minutes
    _TIMEOUT: "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it would print the server's password too
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it would run into the progress lines
}
"""Environment variables, set unless the user has set them."""

UPLOAD_TIMEOUT_S = 30
"""Of a request that carries a file: the server has to store it before it answers."""

_log = logging.getLogger("cabruca.tracking")


def is_folder(uri: str) -> bool:
    """Whether MLflow would take an address for a folder; `databricks` is one without `://` that is none."""
    return uri.startswith("file:") or ("://" not in uri and uri not in ("databricks", "databricks-uc"))


def uri_for(outputs: Path, config: Config) -> str:
    """MLFLOW_TRACKING_URI, else `tracking.mlflow_uri`, else SQLite in the folder `outputs`.

    A `file:` address (the predecessor's `file:./mlruns`) is refused by MLflow 3; SQLite is used and said so.
    """
    local = f"sqlite:///{(outputs / 'mlflow.db').as_posix()}"
    asked = os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.mlflow_uri
    if not asked:
        return local
    if is_folder(asked):
        _log.warning(
            "mlflow_uri '%s' is a folder, which MLflow 3 does not write any more; using %s (set tracking.mlflow_uri to "
            "sqlite:///... or to a server's address; `mlflow migrate-filestore` takes old runs along)",
            asked,
            local,
        )
        return local
    return asked


def quick_mlflow() -> Any:
    """The library, which gives up a server soon and says nothing by itself."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    import mlflow
    import mlflow.pyfunc

    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)  # each retry would be a warning; ours is one
    return mlflow


def experiment_in(client: Any, name: str, uri: str, outputs: Path) -> str:
    """The id of an experiment, which is made where it is not there; `outputs`: where its files go beside SQLite."""
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    # for a data base file MLflow would put artifacts into ./mlruns of wherever the process was started
    place = (outputs / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
    return str(client.create_experiment(name, place))


def say_where(what: str, experiment: str, uri: str) -> None:
    """How to look at `what` in MLflow."""
    if uri.startswith("sqlite:"):
        look = command("ui", "--backend-store-uri", uri, program="mlflow")
        _log.info("MLflow has %s in experiment '%s'; look at it with: %s", what, experiment, look)
    else:
        _log.info("MLflow has %s in experiment '%s' of %s", what, experiment, hide(uri), extra=NOTICE)


def as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Values of parameters as MLflow takes them."""
    return {k: (v if isinstance(v, str) else to_json(v))[:500] for k, v in values.items()}


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """More time for requests, unless the user has decided on it."""
    ours = os.environ.get(_TIMEOUT) == QUICK[_TIMEOUT]
    if ours:
        os.environ[_TIMEOUT] = str(UPLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        if ours:
            os.environ[_TIMEOUT] = QUICK[_TIMEOUT]


def parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    """`items` in lists of at most `size`."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
