"""Weights from elsewhere: a task whose fresh model gets them, so that the train function need not know."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cabruca.errors import CheckpointError
from cabruca.runtime import Runtime
from cabruca.tracking.log import NOTICE
from cabruca.train import checkpoint
from cabruca.train.protocols import Autocast, Losses, State, Task, Validation

_log = logging.getLogger("cabruca.tracking")

_PREFIXES = ("module.", "_orig_mod.")
_WRAPPERS = ("model", "state_dict", "model_state_dict")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A model's state dict from a checkpoint of ours, or from a file that holds a state dict and nothing else.

    `module.` and `_orig_mod.` in front of the names (data parallel, compiled) are taken off.

    Raises:
        CheckpointError: missing, damaged, with Python code in it, or without weights.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"--init-from {path} is not there; give the path of a checkpoint or a state dict")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"--init-from {path} carries Python code and is not opened; save a state dict") from error
    except Exception as error:  # a torn file fails in many ways
        raise CheckpointError(f"--init-from {path} is damaged or not a checkpoint; use another file") from error
    if isinstance(found, Mapping) and "format_version" in found:
        found = checkpoint.read(path)  # ours: its checksum and version are looked at too
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    weights = {_bare(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not weights:
        raise CheckpointError(f"--init-from {path} holds no tensors; give a checkpoint or a state dict")
    return weights


def _bare(name: str) -> str:
    while any(name.startswith(prefix) for prefix in _PREFIXES):
        name = name.split(".", 1)[1]
    return name


class WithWeights:
    """A `Task` that is another one, except that its fresh model begins with given weights.

    Tensors that fit by name and shape are taken; the others keep their fresh values and are listed.

    Args:
        task: the task itself.
        weights: model state dict.
        source: where they come from, for messages.
    """

    def __init__(self, task: Task, weights: Mapping[str, Tensor], source: str) -> None:
        self._task = task
        self._weights = weights
        self._source = source

    def build_model(self) -> nn.Module:
        """The task's model with the weights in.

        Raises:
            CheckpointError: none of them fits.
        """
        model = self._task.build_model()
        own = model.state_dict()
        fitting = {k: v for k, v in self._weights.items() if k in own and own[k].shape == v.shape}
        missing = [k for k in own if k not in fitting]
        if not fitting:
            raise CheckpointError(
                f"none of the {len(self._weights)} tensors of {self._source} fits the model "
                f"('{next(iter(self._weights))}' is its first, '{next(iter(own))}' the model's); "
                "use a checkpoint of the same backbone and heads"
            )
        model.load_state_dict({**own, **fitting})
        if missing:
            shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
            _log.info(
                "%d of %d tensors come from %s; these begin anew: %s",
                *(len(fitting), len(own), self._source, shown),
                extra=NOTICE,
            )
        return model

    def parameter_part(self, name: str) -> str:
        return self._task.parameter_part(name)

    def num_train_samples(self, epoch: int) -> int:
        return self._task.num_train_samples(epoch)

    def train_batches(self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime) -> Iterable[Any]:
        return self._task.train_batches(epoch, index_batches, runtime)

    def losses(self, model: nn.Module, batch: Any) -> Losses:
        return self._task.losses(model, batch)

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        return self._task.validate(model, runtime, autocast, epoch=epoch)

    def state(self) -> State:
        return self._task.state()
