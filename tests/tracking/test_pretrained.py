"""model.pretrained_checkpoint and --init-from: which tensors come in, what is said of the rest, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from drawn import SPEC, light_config
from run_helpers import LineTask, line_config
from torch import nn

from cabruca.config.schema import Config
from cabruca.errors import CheckpointError, ConfigError
from cabruca.model.build import build_model
from cabruca.model.segmenter import parameter_part
from cabruca.run import run_training
from cabruca.tracking.weights import PRETRAINED_REPORT, WithWeights, read_source
from cabruca.train import checkpoint


class NetworkTask(LineTask):
    """The real network as a task; counts how often pretrained weights were asked for."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.fetched = 0

    def build_model(self) -> nn.Module:
        self.fetched += 1
        return self.bare_model()

    def bare_model(self) -> nn.Module:
        return build_model(self.config, SPEC, weights=False)

    def parameter_part(self, name: str) -> str:
        return parameter_part(name)


def loaded(weights: dict[str, torch.Tensor], **model: object) -> tuple[dict[str, torch.Tensor], dict[str, Any], int]:
    """State dict of the light network with these weights in, the report, and how often weights were fetched."""
    task = NetworkTask(light_config(**model))
    wrapped = WithWeights(task, weights, "x.pth")
    state = wrapped.build_model().state_dict()
    assert wrapped.report is not None
    return dict(state), wrapped.report, task.fetched


def network(**model: object) -> dict[str, torch.Tensor]:
    """Weights of a light network of another seed."""
    config = light_config(**model)
    config = config.model_copy(update={"training": config.training.model_copy(update={"seed": 5})})
    return dict(build_model(config, SPEC, weights=False).state_dict())


def test_other_class_counts_begin_anew_and_all_else_comes_in() -> None:
    """Transfer: heads of other sizes."""
    theirs = network()
    state, report, fetched = loaded(theirs, num_instance_classes=4, num_semantic_classes=9)
    assert all(torch.equal(state[name], theirs[name]) for name in report["taken"])
    assert {name.split(".")[0] for name in report["other_shape"]} == {"instance", "semantic"}
    dense = [shapes for name, shapes in report["other_shape"].items() if name.startswith("semantic.")]
    assert {(shapes["file"][0], shapes["network"][0]) for shapes in dense} == {(6, 9)}
    counters = sum(name.endswith("num_batches_tracked") for name in theirs)
    counts = report["parts"]
    assert counts["backbone"] == {"taken": counts["backbone"]["taken"], "other_shape": 0, "not_in_file": 0}
    assert counts["backbone"]["taken"] > counters > 0
    assert counts["custom"]["other_shape"] == 0
    assert (report["not_in_file"], report["unused"], fetched) == ([], [], 0)
    assert len(report["taken"]) + len(report["other_shape"]) == len(theirs)


@pytest.mark.parametrize("wrap", ["", "module.", "_orig_mod.", "backbone.", "encoder."])
def test_a_bare_lite0_fills_the_feature_extractor(tmp_path: Path, wrap: str) -> None:
    """Names as timm gives them, also inside another program's module."""
    torch.manual_seed(3)
    body = timm.create_model("tf_efficientnet_lite0").state_dict()
    torch.save({wrap + name: value for name, value in body.items()}, tmp_path / "x.pth")
    state, report, fetched = loaded(read_source(tmp_path / "x.pth").weights)
    own = [name for name in state if name.startswith("backbone.body.")]
    assert own == [name for name in state if name in set(report["taken"])]
    assert all(torch.equal(state[name], body[name.removeprefix("backbone.body.")]) for name in own)
    assert {name.removeprefix(wrap) for name in report["unused"]} == {
        n for n in body if f"backbone.body.{n}" not in own
    }
    assert set(report["parts"]["heads"]) == {"taken", "other_shape", "not_in_file"}
    assert report["parts"]["heads"]["taken"] == 0
    assert fetched == 0, "nothing is fetched to be overwritten"


def test_a_bare_resnet50_of_torchvision_fills_the_feature_extractor(tmp_path: Path) -> None:
    torch.manual_seed(3)
    body = torchvision.models.resnet50().state_dict()
    torch.save(body, tmp_path / "resnet50.pth")
    state, report, fetched = loaded(read_source(tmp_path / "resnet50.pth").weights, backbone="resnet50")
    assert report["renamed"] == {"taken_off": "", "put_in_front": "backbone.body."}
    assert report["unused"] == ["fc.bias", "fc.weight"]
    assert torch.equal(state["backbone.body.layer4.2.conv3.weight"], body["layer4.2.conv3.weight"])
    assert fetched == 0


def test_heads_alone_still_get_the_pretrained_backbone() -> None:
    heads = {name: value for name, value in network().items() if not name.startswith("backbone.")}
    _, report, fetched = loaded(heads)
    assert (report["parts"]["heads"]["not_in_file"], fetched) == (0, 1)


def test_another_pyramid_width_keeps_the_body_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "cabruca")
    _, report, fetched = loaded(network(), fpn_channels=96)
    assert all(name.startswith("backbone.fpn.") for name in report["other_shape"] if name.startswith("backbone."))
    assert fetched == 0
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("  backbone:")]
    assert "of another shape begin anew (backbone.fpn." in line


@pytest.mark.parametrize("other", ["resnet18", "resnet50"])
def test_another_backbone_is_refused_although_scraps_of_it_fit(other: str) -> None:
    """The pyramid's biases and the heads fit whatever the backbone; a head on features it never saw is no start."""
    theirs = network(backbone=other)
    with pytest.raises(CheckpointError, match=r"x\.pth fits \d+ of the \d+ tensors of the backbone"):
        loaded(theirs)


def test_the_two_kinds_of_norm_do_not_mix() -> None:
    with pytest.raises(CheckpointError, match=r"holds batch norm .* set model\.pretrained: imagenet"):
        loaded(network(), pretrained="none")
    scratch = network(backbone="resnet18", pretrained="none")
    with pytest.raises(CheckpointError, match=r"no batch norm statistics .* set model\.pretrained: none"):
        loaded(scratch, backbone="resnet18")
    taken = loaded(scratch, backbone="resnet18", pretrained="none")[1]
    assert taken["other_shape"] == {}


@pytest.fixture
def weights(tmp_path: Path) -> str:
    state = dict(LineTask(line_config(tmp_path, training__seed=99)).build_model().state_dict())
    del state["2.bias"]
    torch.save({**state, "0.weight": state["0.weight"], "extra": torch.zeros(2)}, tmp_path / "w.pth")
    return str(tmp_path / "w.pth")


def line_run(folder: Path, *, resume: str | None = None, init_from: str | None = None, **dotted: Any) -> dict[str, Any]:
    config = line_config(folder, experiment_name="a", optimizer__lr=1e-9, **dotted)
    run_training(config, resume=resume, init_from=init_from, task_factory=LineTask, quiet=True)
    return checkpoint.read(folder / "a" / "checkpoints" / "checkpoint_latest.pth")


def test_the_key_fills_a_fresh_run_and_leaves_its_report(tmp_path: Path, weights: str) -> None:
    state = line_run(tmp_path, model={"pretrained_checkpoint": weights}, training__num_epochs=1)
    given = torch.load(weights, weights_only=True)
    assert torch.allclose(state["model"]["0.weight"], given["0.weight"], atol=1e-5)
    report = json.loads((tmp_path / "a" / PRETRAINED_REPORT).read_text())
    assert report == {
        "source": weights,
        "renamed": {"taken_off": "", "put_in_front": ""},
        "parts": {
            "backbone": {"taken": 2, "other_shape": 0, "not_in_file": 0},
            "heads": {"taken": 1, "other_shape": 0, "not_in_file": 1},
        },
        "taken": ["0.bias", "0.weight", "2.weight"],
        "other_shape": {},
        "not_in_file": ["2.bias"],
        "unused": ["extra"],
    }
    log = (tmp_path / "a" / "train.log").read_text()
    assert f"3 of the network's 4 tensors come from {weights}; 1 of the file are not used (extra)" in log
    assert "  heads: 1 of 2 taken; 1 not in the file begin anew (2.bias)" in log


def test_a_resumed_run_does_not_read_it_and_says_so(tmp_path: Path, weights: str) -> None:
    line_run(tmp_path, model={"pretrained_checkpoint": weights}, training__num_epochs=1)
    Path(weights).unlink()  # it is needed no more
    state = line_run(tmp_path, resume="auto", model={"pretrained_checkpoint": weights}, training__num_epochs=2)
    assert state["epoch"] == 2
    log = (tmp_path / "a" / "train.log").read_text()
    assert log.count(f"model.pretrained_checkpoint {weights} is not read") == 1


def test_init_from_is_the_same_and_two_files_are_refused(tmp_path: Path, weights: str) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(Path(weights).read_bytes())
    with pytest.raises(ConfigError, match=r"are two files; give one of them"):
        line_run(tmp_path, init_from=str(other), model={"pretrained_checkpoint": weights})
    assert not (tmp_path / "a").exists()
    line_run(tmp_path, init_from=weights, model={"pretrained_checkpoint": weights}, training__num_epochs=1)
    assert (tmp_path / "a" / PRETRAINED_REPORT).is_file()


def test_classes_in_another_order_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The heads fit by their shapes, and would call each tree by the other's name."""
    model = dict(LineTask(line_config(tmp_path)).build_model().state_dict())
    task = {"input": {"instance_classes": ["shade_tree", "cacao_tree"], "semantic_classes": ["background"]}}
    path = tmp_path / "w.pth"
    checkpoint.write(path, {"model": model, "epoch": 1, "step": 1, "task": task}, metric=None)
    line_run(tmp_path, init_from=str(path), training__num_epochs=1)
    (line,) = [r.getMessage() for r in caplog.records if "learnt the instance classes" in r.getMessage()]
    assert "shade_tree, cacao_tree" in line
    assert "cacao_tree, shade_tree" in line


def test_a_missing_file_is_named_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^model\.pretrained_checkpoint .*no\.pth is not there; give"):
        line_run(tmp_path, model={"pretrained_checkpoint": str(tmp_path / "no.pth")})
    assert not (tmp_path / "a").exists()
