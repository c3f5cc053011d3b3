"""Weights from elsewhere: a task whose fresh model gets them, so that the train function need not know."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cabruca.errors import CheckpointError
from cabruca.train import checkpoint
from cabruca.train.protocols import NOTICE, State, Task, TaskAround

_log = logging.getLogger("cabruca.tracking")

_PREFIXES = ("module.", "_orig_mod.")
_WRAPPERS = ("model", "state_dict", "model_state_dict")
_STATISTICS = ("mean", "std")
"""Buffers of early checkpoints; the input's mean and deviation come from the input specification alone."""


@dataclass(frozen=True)
class Source:
    """What `--init-from` gives: a model's state dict and, from a checkpoint of ours, `state` of the task it was of."""

    weights: dict[str, Tensor]
    task: State = field(default_factory=dict)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of `read_source`."""
    return read_source(path).weights


def read_source(path: str | Path) -> Source:
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
    task: Any = None
    if isinstance(found, Mapping) and "format_version" in found:
        found = checkpoint.read(path)  # ours: its checksum and version are looked at too
        task = found.get("task")
    weights = _weights_in(found)
    if not weights:
        raise CheckpointError(f"--init-from {path} holds no tensors; give a checkpoint or a state dict")
    return Source(weights, dict(task) if isinstance(task, Mapping) else {})


def _weights_in(found: Any) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    named = {_bare(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    return {k: v for k, v in named.items() if k not in _STATISTICS}


def _bare(name: str) -> str:
    while any(name.startswith(prefix) for prefix in _PREFIXES):
        name = name.split(".", 1)[1]
    return name


class WithWeights(TaskAround):
    """A `Task` that is another one, except that its fresh model begins with given weights.

    Tensors that fit by name and shape are taken; the others keep their fresh values and are listed.

    Args:
        task: the task itself.
        weights: model state dict.
        source: where they come from, for messages.
    """

    def __init__(self, task: Task, weights: Mapping[str, Tensor], source: str) -> None:
        super().__init__(task)
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
        missing = [k for k in own if k not in fitting and k not in _STATISTICS]
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
