"""Weights from elsewhere: a task whose fresh model gets them, so that the train function need not know."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cabruca.config.schema import Config
from cabruca.errors import CheckpointError, ConfigError
from cabruca.tracking.matched import IGNORED, lines_of, match, refuse_misfit, report_of
from cabruca.train import checkpoint
from cabruca.train.protocols import NOTICE, State, Task, TaskAround

_log = logging.getLogger("cabruca.tracking")

PRETRAINED_REPORT = "pretrained_report.json"
"""In the run folder: which tensors of the file were taken."""

_WRAPPERS = ("model", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Source:
    """What a file of weights gives: a state dict and, from a checkpoint of ours, `state` of the task it was of."""

    weights: dict[str, Tensor]
    task: State = field(default_factory=dict)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights of `read_source`."""
    return read_source(path).weights


def read_source(path: str | Path, asked_by: str = "--init-from") -> Source:
    """A model's state dict from a checkpoint of ours, or from a file that holds a state dict and nothing else.

    `module.` in front of the names (data parallel) and `_orig_mod.` in them (compiled) are taken out.

    Args:
        asked_by: the flag or key that named the file, for messages.

    Raises:
        CheckpointError: missing, damaged, with Python code in it, or without weights.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{asked_by} {path} is not there; give the path of a checkpoint or a state dict")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{asked_by} {path} carries Python code and is not opened; save a state dict") from error
    except Exception as error:  # a torn file fails in many ways
        raise CheckpointError(f"{asked_by} {path} is damaged or not a checkpoint; use another file") from error
    task: Any = None
    if isinstance(found, Mapping) and "format_version" in found:
        found = checkpoint.read(path)  # ours: its checksum and version are looked at too
        task = found.get("task")
    weights = _weights_in(found)
    if not weights:
        raise CheckpointError(f"{asked_by} {path} holds no tensors; give a checkpoint or a state dict")
    return Source(weights, dict(task) if isinstance(task, Mapping) else {})


def _weights_in(found: Any) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    named = {_bare(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    return {k: v for k, v in named.items() if k not in IGNORED}


def _bare(name: str) -> str:
    name = name.replace("_orig_mod.", "")  # also in the middle, where a part was compiled
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def first_weights(init_from: str | None, pretrained: str | None) -> tuple[str, str] | None:
    """Which file a fresh run begins with and what asked for it; None: no file.

    Args:
        init_from: the flag `--init-from`. pretrained: `model.pretrained_checkpoint`.

    Raises:
        ConfigError: both are given and are not the same file.
    """
    if init_from is not None and pretrained is not None and Path(init_from).resolve() != Path(pretrained).resolve():
        raise ConfigError(
            f"--init-from {init_from} and model.pretrained_checkpoint {pretrained} are two files; give one of them "
            "(--set model.pretrained_checkpoint=null leaves the configuration's out)"
        )
    if init_from is not None:
        return init_from, "--init-from"
    return None if pretrained is None else (pretrained, "model.pretrained_checkpoint")


def warn_of_other_classes(config: Config, task: State) -> None:
    """Heads fit by their shapes alone: the same number of classes under other names, or in another order, is told.

    Args:
        task: `state()` of the checkpoint's task; of a plain state dict there is none, and nothing is known.
    """
    spec = task.get("input")
    for kind, names in (("instance", config.model.instance_names), ("semantic", config.model.semantic_names)):
        theirs = tuple(spec.get(f"{kind}_classes") or ()) if isinstance(spec, Mapping) else ()
        if theirs != names and len(theirs) == len(names):
            _log.warning(
                "the weights learnt the %s classes %s and this run has %s: its heads begin with what they learnt for "
                "the class of the same number",
                *(kind, ", ".join(theirs), ", ".join(names)),
            )


class WithWeights(TaskAround):
    """A `Task` that is another one, except that its fresh model begins with given weights.

    Tensors that fit by name and shape are taken; the others keep their fresh values. `report` says what became of each,
    from the first `build_model` on. A task may offer `bare_model() -> nn.Module`, a model without pretrained weights:
    it is filled where the file covers the whole feature extractor, so that nothing is fetched to be overwritten.

    Args:
        task: the task itself.
        weights: model state dict.
        source: where they come from, for messages.
    """

    def __init__(self, task: Task, weights: Mapping[str, Tensor], source: str) -> None:
        super().__init__(task)
        self._weights = weights
        self._source = source
        self.report: dict[str, Any] | None = None

    def build_model(self) -> nn.Module:
        """The task's model with the weights in.

        Raises:
            CheckpointError: none of them fits, or they are of another backbone.
        """
        bare: Callable[[], nn.Module] | None = getattr(self._task, "bare_model", None)
        model = self._task.build_model() if bare is None else bare()
        found = match(self._weights, model.state_dict())
        refuse_misfit(found, model.state_dict(), self._task.parameter_part, self._source)
        if bare is not None and not found.covers_body:
            model = self._task.build_model()
        model.load_state_dict({**model.state_dict(), **found.fitting})
        if self.report is None:
            self.report = report_of(found, self._task.parameter_part, self._source)
            for line in lines_of(found, self._task.parameter_part, self._source):
                _log.info("%s", line, extra=NOTICE)
        return model
