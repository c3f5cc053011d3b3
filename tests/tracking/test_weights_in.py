"""--init-from: weights and nothing else, from a checkpoint or a plain state dict."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import LineTask, line_config

from cabruca.errors import CheckpointError
from cabruca.run import run_training
from cabruca.tracking.weights import WithWeights, read_weights
from cabruca.train import checkpoint
from cabruca.train.protocols import Task


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    task = LineTask(line_config(tmp_path, training__seed=99))
    return dict(task.build_model().state_dict())


@pytest.mark.parametrize("form", ["checkpoint", "plain", "state_dict", "compiled", "parallel", "part compiled"])
def test_every_form_is_read(tmp_path: Path, weights: dict[str, torch.Tensor], form: str) -> None:
    path = tmp_path / "x.pth"
    if form == "checkpoint":
        checkpoint.write(path, {"model": weights, "epoch": 3, "step": 9}, metric=None)
    else:
        prefix = {"compiled": "_orig_mod.", "parallel": "module._orig_mod."}.get(form, "")
        inside = "._orig_mod." if form == "part compiled" else "."
        plain: Any = {prefix + k.replace(".", inside): v for k, v in weights.items()}
        torch.save({"state_dict": plain, "epoch": 3} if form == "state_dict" else plain, path)
    found = read_weights(path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[k], weights[k]) for k in weights)


def test_a_run_begins_with_them_and_with_nothing_else(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "x.pth"
    checkpoint.write(path, {"model": weights, "epoch": 3, "step": 9, "stage": 4, "config": {}}, metric=None)
    config = line_config(tmp_path, experiment_name="a", training__num_epochs=1, optimizer__lr=1e-9)
    result = run_training(config, init_from=str(path), task_factory=LineTask, quiet=True)
    state = checkpoint.read(tmp_path / "a" / "checkpoints" / "checkpoint_latest.pth")
    assert (result.epochs, state["epoch"], state["step"], state["stage"]) == (1, 1, 6, 0)
    assert all(torch.allclose(state["model"][k], weights[k], atol=1e-5) for k in weights)
    fresh = LineTask(config).build_model().state_dict()
    assert not all(torch.allclose(state["model"][k], fresh[k], atol=1e-5) for k in weights)


def test_a_resumed_run_does_not_take_them_again(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "x.pth"
    torch.save(weights, path)
    for epochs in (1, 2):  # the same command line twice, as a batch system repeats it
        config = line_config(tmp_path, experiment_name="a", training__num_epochs=epochs)
        run_training(config, resume="auto", init_from=str(path), task_factory=LineTask, quiet=True)
    assert checkpoint.read(tmp_path / "a" / "checkpoints" / "checkpoint_latest.pth")["step"] == 12


def test_what_does_not_fit_begins_anew(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    task = LineTask(line_config(tmp_path))
    other = {**weights, "2.weight": torch.zeros(7, 4), "gone": torch.zeros(1)}
    wrapped = WithWeights(task, other, "x.pth")
    assert isinstance(wrapped, Task)
    mixed, fresh = wrapped.build_model().state_dict(), task.build_model().state_dict()
    assert torch.equal(mixed["0.weight"], weights["0.weight"])
    assert torch.equal(mixed["2.weight"], fresh["2.weight"])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    wrapped = WithWeights(LineTask(line_config(tmp_path)), {"conv1.weight": torch.zeros(3)}, "x.pth")
    with pytest.raises(CheckpointError, match=r"none of the 1 tensors of x.pth fits"):
        wrapped.build_model()


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/cabruca-evil",)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (None, "is not there"),
        (b"\x80\x04garbage", "Python code|damaged"),
        ({"epoch": 1}, "no tensors"),
        (Evil(), "code"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, content: Any, rule: str) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=rule) as error:
        read_weights(path)
    assert "\n" not in str(error.value)
    assert not Path("/tmp/cabruca-evil").exists()
