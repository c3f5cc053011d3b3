"""MLflow: one experiment for all runs, one MLflow run a run folder, metrics at the optimizer step."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from cabruca.commands import command
from cabruca.config.schema import Config
from cabruca.tracking.files import to_json
from cabruca.tracking.guarded import interrupted
from cabruca.tracking.mlflow_model import log_model
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.scalars import best_scalar, finite, flatten, step_scalars
from cabruca.tracking.secrets import hide
from cabruca.train.protocols import NOTICE, BaseCallback, Record, RunInfo, TrainResult

FOLDER_TAG = "cabruca.run_dir"

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


def tracking_uri(run_dir: RunDir, config: Config) -> str:
    """Where MLflow keeps its records: MLFLOW_TRACKING_URI, else `tracking.mlflow_uri`, else SQLite in output_dir.

    A `file:` address (the predecessor's `file:./mlruns`) is refused by MLflow 3; SQLite is used and said so.
    """
    local = f"sqlite:///{(run_dir.path.absolute().parent / 'mlflow.db').as_posix()}"
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


class MLflowTracker(BaseCallback):
    """Sends parameters, metrics, files, the best checkpoint and the model through `MlflowClient`, which keeps no
    global state.

    A resumed run goes on in the MLflow run of its folder, found by the tag `cabruca.run_dir`. Files are sent when the
    run ends: configuration, history, log, notes, plots, validation pictures, `checkpoint_best`, and that checkpoint
    once more as a model that `mlflow.pyfunc.load_model` loads. A run that is interrupted sends none of them: there is
    no time for it, and the run that goes on will.
    """

    def __init__(self, run_dir: RunDir, config: Config) -> None:
        for name, value in QUICK.items():
            os.environ.setdefault(name, value)
        import mlflow
        import mlflow.pyfunc

        for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "urllib3.connectionpool"):
            logging.getLogger(noisy).setLevel(logging.ERROR)  # each retry would be a warning; ours is one
        self._entities = mlflow.entities
        self._client_of = mlflow.MlflowClient
        self._run_dir = run_dir
        self._experiment = config.tracking.mlflow_experiment
        self._monitor = config.training.monitor_metric
        self._uri = tracking_uri(run_dir, config)
        self._client: Any = None
        self._experiment_id = ""
        self._run_id = ""

    def on_start(self, info: RunInfo) -> None:
        self._client = self._client_of(tracking_uri=self._uri)
        experiment = self._client.get_experiment_by_name(self._experiment)
        self._experiment_id = experiment.experiment_id if experiment else self._new_experiment()
        run = self._run_of_folder(info.resumed_step > 0)
        self._run_id = run.info.run_id
        self._client.set_terminated(self._run_id, "RUNNING")
        self._send_params(info.config, known=run.data.params)
        if self._run_dir.config_yaml.is_file():
            self._client.log_artifact(self._run_id, str(self._run_dir.config_yaml))

    def on_step(self, record: Record) -> None:
        self._send_metrics(step_scalars(record), record.step)

    def on_epoch(self, record: Record) -> None:
        self._send_metrics(finite(record), record.step)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if not self._run_id:
            return
        states = {"finished": "FINISHED", "stopped": "KILLED", "interrupted": "KILLED"}
        try:
            if result is not None:
                self._send_metrics(best_scalar(result, self._monitor), result.step)
            if not interrupted(result, error):
                with _patient():
                    self._send_files()
                    log_model(self._client, self._experiment_id, self._run_id, self._run_dir)
        finally:
            self._client.set_terminated(self._run_id, states[result.state] if result else "FAILED")
        if self._uri.startswith("sqlite:"):
            look = command("ui", "--backend-store-uri", self._uri, program="mlflow")
            _log.info("MLflow has this run in experiment '%s'; look at it with: %s", self._experiment, look)
        else:
            _log.info("MLflow has this run in experiment '%s' of %s", self._experiment, hide(self._uri), extra=NOTICE)

    def _new_experiment(self) -> str:
        # for a data base file MLflow would put artifacts into ./mlruns of wherever the process was started
        artifacts = (self._run_dir.path.absolute().parent / "mlartifacts").as_uri()
        place = artifacts if self._uri.startswith("sqlite:") else None
        return str(self._client.create_experiment(self._experiment, place))

    def _run_of_folder(self, resumed: bool) -> Any:
        folder = str(self._run_dir.path.resolve())
        if resumed:
            quoted = folder.replace("'", "")
            found = self._client.search_runs([self._experiment_id], f"tags.`{FOLDER_TAG}` = '{quoted}'", max_results=1)
            if found:
                return found[0]
        tags = {FOLDER_TAG: folder.replace("'", "")}
        return self._client.create_run(self._experiment_id, run_name=self._run_dir.name, tags=tags)

    def _send_params(self, config: Mapping[str, Any], known: Mapping[str, str]) -> None:
        # a parameter cannot be changed once it is written: a resumed run adds only what is new
        texts = {k: v if isinstance(v, str) else to_json(v) for k, v in flatten(config).items()}
        params = [self._entities.Param(k, v[:500]) for k, v in texts.items() if k not in known]
        for part in _parts(params, 100):  # MLflow's limit
            self._client.log_batch(self._run_id, params=part)

    def _send_metrics(self, scalars: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, step) for name, value in scalars.items()]
        for part in _parts(metrics, 1000):
            self._client.log_batch(self._run_id, metrics=part)

    def _send_files(self) -> None:
        run = self._run_dir
        files = (run.environment, run.metrics, run.history, run.log, run.path / "notes.json")
        for file in files:
            if file.is_file():
                self._client.log_artifact(self._run_id, str(file))
        for folder in (run.plots, run.predictions):
            if folder.is_dir() and any(folder.iterdir()):
                self._client.log_artifacts(self._run_id, str(folder), folder.name)
        for file in (run.best, run.best.with_suffix(".json")):
            if file.is_file():
                self._client.log_artifact(self._run_id, str(file), run.checkpoints.name)


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """More time for requests, unless the user has decided on it."""
    ours = os.environ.get(_TIMEOUT) == QUICK[_TIMEOUT]
    if ours:
        os.environ[_TIMEOUT] = str(UPLOAD_TIMEOUT_S)
    try:
        yield
    finally:
        if ours:
            os.environ[_TIMEOUT] = QUICK[_TIMEOUT]


def _parts(items: list[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
