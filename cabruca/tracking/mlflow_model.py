"""The best checkpoint as an MLflow model with a signature: `mlflow.pyfunc.load_model("runs:/<run id>/model")`.

A run that is gone on with ends more than once and leaves a model each time; that address is of the newest.

The model holds the weights (as a checkpoint that carries tensors and plain containers only), a copy of this package's
code, and the name of the module that loads it. Nothing is pickled, and a machine without cabruca can load it.
"""

from __future__ import annotations

import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cabruca
from cabruca.tracking.run_dir import RunDir
from cabruca.train import checkpoint
from cabruca.train.protocols import State

NAME = "model"

LOADER = "cabruca.served_model"

PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "scipy", "rasterio", "shapely", "faster-coco-eval", "pydantic"),
    *("pyyaml", "pillow", "psutil", "pandas"),
)
"""What the loader imports, beside MLflow."""

CROWNS: tuple[tuple[str, str], ...] = (
    *(("picture", "long"), ("label", "long"), ("class_name", "string"), ("score", "double")),
    *(("xmin_px", "double"), ("ymin_px", "double"), ("xmax_px", "double"), ("ymax_px", "double")),
    ("crown_diameter_px", "double"),
)
"""Columns that the loader's `predict` gives."""


def log_model(client: Any, experiment_id: str, run_id: str, run_dir: RunDir) -> str | None:
    """Send the model of `checkpoint_best`; nothing where there is none, or where it is no network of ours.

    Args:
        client: a `MlflowClient`.

    Returns:
        The logged model's id; "" of a server that knows none and got a folder of the run; None where nothing was sent.
    """
    if not run_dir.best.is_file():
        return None
    state = checkpoint.read(run_dir.best)
    if "input" not in (state.get("task") or {}):
        return None
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / NAME
        save_model(state, model)
        try:
            logged = client.create_logged_model(experiment_id, name=NAME, source_run_id=run_id)
        except Exception:  # a server of before MLflow 3: a folder of the run does as well
            client.log_artifacts(run_id, str(model), NAME)
            return ""
        client.log_model_artifacts(logged.model_id, str(model))
        client.finalize_logged_model(logged.model_id, "READY")
        return str(logged.model_id)


def save_model(state: State, path: Path) -> None:
    """Write the model of a checkpoint's state into the folder `path`, which is not there yet."""
    import mlflow.pyfunc

    slim = {name: state.get(name) for name in ("model", "config", "task", "epoch", "step")}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about an input example: the signature says it all
        weights = Path(folder) / "checkpoint.pth"
        checkpoint.write(weights, slim, metric=None)
        mlflow.pyfunc.save_model(
            str(path),
            loader_module=LOADER,
            data_path=str(weights),
            code_paths=[str(Path(cabruca.__file__).parent)],
            pip_requirements=[*_pinned(PACKAGES), f"mlflow>={mlflow.__version__.split('.')[0]}"],
            signature=_signature(state),
            metadata={"cabruca": cabruca.__version__, "input": dict(state["task"]["input"])},
        )


def _signature(state: State) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    bands = len(state["task"]["input"]["bands"])
    least = float(state["config"]["validation"]["score_threshold"])
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, bands, -1, -1))]),
        outputs=Schema([ColSpec(DataType[kind], name) for name, kind in CROWNS]),
        params=ParamSchema([ParamSpec("score_threshold", DataType.double, least)]),
    )


def _pinned(packages: tuple[str, ...]) -> list[str]:
    """`name==version` as installed here; a local build (`2.6.0+cu124`) is asked for by its public version."""
    out = []
    for name in packages:
        try:
            out.append(f"{name}=={version(name).split('+')[0]}")
        except PackageNotFoundError:
            out.append(name)
    return out
