"""Exported dense heads give the network's own numbers, for any batch."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import SPEC, drawn_sample, light_config

from cabruca import exporting
from cabruca.cli.main import main
from cabruca.config.schema import Config
from cabruca.errors import CabrucaError, CheckpointError, ConfigError
from cabruca.exporting import LEFT_OUT, DenseHeads, Exported, compare, export
from cabruca.model.build import build_model
from cabruca.structures import collate
from cabruca.train import checkpoint
from cabruca.train.sidecar import is_intact

SIZE = 64


def saved(folder: Path, config: Config | None = None) -> Path:
    config = config or light_config()
    path = folder / "checkpoint_best.pth"
    model = build_model(config, SPEC, weights=False)
    state = {"model": dict(model.state_dict()), "config": config.to_dict(), "task": {"input": SPEC.to_dict()}}
    checkpoint.write(path, {**state, "epoch": 1, "step": 1}, metric=None)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("exported"))


def images(n: int) -> torch.Tensor:
    return torch.stack([drawn_sample([(30.0, 30.0, 12.0, 1)], size=SIZE, index=i).image for i in range(n)])


def of_the_network(path: Path, pictures: torch.Tensor) -> list[np.ndarray]:
    """What `Segmenter` itself predicts: land cover, diameters, density."""
    from cabruca.evaluation import load_model

    model = load_model(path)[0]
    samples = [drawn_sample([], size=SIZE, index=i) for i in range(len(pictures))]
    batch = collate(samples)
    found = model(type(batch)(**{**vars(batch), "images": pictures}), losses=False, predictions=True).predictions
    names = ("semantic", "crown_diameter_px", "density")
    return [np.stack([getattr(f, name).numpy() for f in found]) for name in names]


def check(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    land, diameter, density = got
    assert np.mean(land.argmax(axis=1) == wanted[0]) > 0.999  # a tie may fall to the other side
    np.testing.assert_allclose(diameter, wanted[1], rtol=1e-4)
    np.testing.assert_allclose(density, wanted[2], atol=1e-4)


def test_onnx_gives_the_same_numbers_for_any_batch(made: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra cabruca[export] is not installed")
    done = export(made, "onnx", tmp_path / "dense.onnx", tile_size=SIZE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dense.onnx", "dense.onnx.json"]
    session = runtime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["semantic", "crown_diameter_px", "density"]
    for n in (1, 3):
        check(session.run(None, {"image": images(n).numpy()}), of_the_network(made, images(n)))


def test_torch_export_gives_the_same_numbers_for_any_batch(made: Path, tmp_path: Path) -> None:
    done = export(made, "torch-export", made.with_suffix(".pt2"), tile_size=SIZE)
    program = torch.export.load(done.path).module()
    for n in (1, 3):
        with torch.no_grad():
            check([v.numpy() for v in program(images(n))], of_the_network(made, images(n)))
    assert is_intact(made)
    told = json.loads(done.side.read_text())
    assert told["input"]["shape"] == ["batch", 3, SIZE, SIZE]
    assert (told["input"]["scale"], told["input"]["mean"], told["input"]["bands"]) == (255.0, [0.5] * 3, [1, 2, 3])
    assert told["classes"]["semantic"][1] == "cacao_tree"
    assert [o["name"] for o in told["outputs"]] == ["semantic", "crown_diameter_px", "density"]
    assert "suppression" in told["not_exported"]["instance"]
    assert told["largest_difference"] <= 1e-4


def test_the_command_says_what_is_not_exported(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Exported(tmp_path / "a.pt2", tmp_path / "a.pt2.json", ("semantic", "density"), LEFT_OUT, 3e-6)
    monkeypatch.setattr(exporting, "export", lambda *_, **__: done)
    words = ["export", "--checkpoint", str(made), "--format", "torch-export", "--out", str(tmp_path / "a.pt2")]
    for more, lines in (([], 3), (["--quiet"], 0)):
        with pytest.raises(SystemExit):
            main([*words, *more])
        said = capsys.readouterr().out.splitlines()
        assert len(said) == lines
        assert not lines or said[0] == f"{done.path}: semantic, density; differs from the checkpoint by at most 3e-06"
        assert not lines or said[2].startswith(
            "not exported: the instance head (boxes, classes and masks of crowns: non-"
        )
    assert "use cabruca predict for crowns" in LEFT_OUT["instance"]


def test_numbers_that_differ_are_not_handed_out(made: Path) -> None:
    from cabruca.evaluation import load_model

    dense = DenseHeads(load_model(made)[0]).eval()

    def wrong(pictures: torch.Tensor) -> Any:
        with torch.no_grad():
            first, *rest = dense(pictures)
        return [first + 1e-2, *rest]

    def broken(pictures: torch.Tensor) -> Any:
        with torch.no_grad():
            return [v * float("nan") for v in dense(pictures)]

    for run in (wrong, broken):
        with pytest.raises(CabrucaError, match="nothing is written"):
            compare(dense, run, [images(1)])


def test_what_is_asked_for_wrongly(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--tile-size 100 is no multiple of 32"):
        export(made, "torch-export", tmp_path / "a.pt2", tile_size=100)
    with pytest.raises(ConfigError, match="not known"):
        export(made, "tflite", tmp_path / "a.tflite")
    with pytest.raises(ConfigError, match="describes the export"):
        export(made, "torch-export", tmp_path / "a.json")
    for name in (made, made.with_suffix(""), made.with_name("checkpoint_latest.pth")):
        with pytest.raises(ConfigError, match="has the name of a checkpoint"):
            export(made, "torch-export", name)
    with pytest.raises(CheckpointError, match="is not there"):
        export(tmp_path / "none.pth", "torch-export", tmp_path / "a.pt2")
    with pytest.raises(CabrucaError, match="no dense head"):
        export(saved(tmp_path, light_config(heads=("instance",))), "torch-export", tmp_path / "a.pt2")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("a.")] == []


def test_a_missing_library_names_the_extra(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxscript":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(SystemExit) as done:
        main(["export", "--checkpoint", str(made), "--format", "onnx", "--out", str(tmp_path / "a.onnx")])
    assert done.value.code == 2
    said = capsys.readouterr().err
    assert "pip install 'cabruca[export]'" in said
    assert len(said.splitlines()) == 1
