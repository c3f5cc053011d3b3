"""`cabruca ui mlflow|tensorboard|optuna`: other people's pages over what was logged, on this machine alone."""

from __future__ import annotations

from pathlib import Path

import click

from cabruca.cli.serving import HOST, PORT, become, need, refuse_taken
from cabruca.errors import RunError

outputs_option = click.option(
    "--outputs", default="outputs", show_default=True, metavar="DIR", help="Folder with runs and studies."
)


@click.group(short_help="Open MLflow, TensorBoard or Optuna's dashboard.")
def ui() -> None:
    """Start another program's pages over the store that runs and studies have written. Served on 127.0.0.1 alone."""


@ui.command()
@outputs_option
@click.option("--port", type=PORT, default=5000, show_default=True, help="Port on 127.0.0.1.")
@click.option("--uri", metavar="URI", help="Address of the store; default: where runs log to without one.")
def mlflow(outputs: str, port: int, uri: str | None) -> int:
    """MLflow over <outputs>/mlflow.db, or over --uri."""
    need("ui", "cabruca ui mlflow", "mlflow")
    database = Path(outputs).absolute() / "mlflow.db"
    if uri is None and not database.is_file():
        raise RunError(f"{database} is not there: no run has logged to MLflow; train with --use-mlflow, or give --uri")
    store = uri or f"sqlite:///{database.as_posix()}"
    refuse_taken(port)
    _say("MLflow", store, port)
    words = ["-m", "mlflow", "ui", "--backend-store-uri", store, "--host", HOST, "--port", str(port), "--workers", "1"]
    return become(words, {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": store})


@ui.command()
@outputs_option
@click.option("--run", "name", metavar="NAME", help="One run only; default: all of them.")
@click.option("--port", type=PORT, default=6006, show_default=True, help="Port on 127.0.0.1.")
def tensorboard(outputs: str, name: str | None, port: int) -> int:
    """TensorBoard over the runs of a folder, or over one."""
    from cabruca.tracking.runs import find_run

    need("ui", "cabruca ui tensorboard", "tensorboard")
    folder = find_run(name, outputs).path if name else Path(outputs)
    if next(folder.rglob("events.out.tfevents.*"), None) is None:
        raise RunError(f"{folder} has no TensorBoard files; train without --no-tensorboard, or give another --outputs")
    refuse_taken(port)
    _say("TensorBoard", str(folder.absolute()), port)
    words = ["--logdir", str(folder.absolute()), "--host", HOST, "--port", str(port)]
    return become(["-m", "tensorboard.main", *words])


@ui.command()
@outputs_option
@click.option("--study", metavar="NAME", help="Its name or folder; default: the only one there is.")
@click.option("--port", type=PORT, default=8080, show_default=True, help="Port on 127.0.0.1.")
def optuna(outputs: str, study: str | None, port: int) -> int:
    """Optuna's dashboard over a study's optuna.db."""
    from cabruca.tracking.study_dir import find_study, names_of_studies

    need("ui", "cabruca ui optuna", "optuna_dashboard")
    known = names_of_studies(outputs)
    if study is None and len(known) != 1:
        which = f"there are {', '.join(known[:8])}" if known else "there is none; begin one with cabruca tune"
        raise RunError(f"--study is not given and {which}" + ("; give the name of one" if known else ""))
    database = find_study(study or known[0], outputs).optuna_db.absolute()
    if not database.is_file():
        raise RunError(f"{database} is not there yet; it comes with the study's first trial")
    refuse_taken(port)
    _say("Optuna's dashboard", str(database), port)
    store = f"sqlite:///{database.as_posix()}"
    return become(["-c", _OPTUNA, store, "--host", HOST, "--port", str(port)])


_OPTUNA = "from optuna_dashboard._cli import main; main()"
"""What its console script does; it has no `python -m`."""


def _say(what: str, store: str, port: int) -> None:
    from cabruca.tracking.secrets import hide

    click.echo(f"{what} over {hide(store)}: http://{HOST}:{port}  (Ctrl-C stops it)")
