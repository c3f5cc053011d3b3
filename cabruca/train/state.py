"""The parts of a checkpoint's state: place in the run, random number generators, tensors, facts of the machine."""

from __future__ import annotations

import logging
import math
import platform
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cabruca._version import __version__
from cabruca.draws import draw_key
from cabruca.errors import CheckpointError
from cabruca.runtime import Runtime
from cabruca.train.protocols import State

log = logging.getLogger("cabruca")


@dataclass
class Place:
    """Where the run is.

    Attributes:
        epoch: epochs completed; step: optimizer steps ever; step_in_epoch: of the unfinished epoch.
        best, best_epoch: best monitored metric, and the number of epochs completed then.
        validations_without_improvement: patience used up; skipped_in_a_row: non-finite steps since the last good one.
        stage: number of the run in a chain of runs that hand on their weights; elapsed_s: seconds trained before.
        shrunk: after a shortage of memory `{asked, batch_size}`: the batch size that was configured, and the one that
            fits; else empty.
    """

    epoch: int = 0
    step: int = 0
    step_in_epoch: int = 0
    best: float | None = None
    best_epoch: int | None = None
    validations_without_improvement: int = 0
    skipped_in_a_row: int = 0
    stage: int = 0
    elapsed_s: float = 0.0
    shrunk: dict[str, int] = field(default_factory=dict)

    def judge(self, value: float, *, minimize: bool) -> bool:
        """Note the monitored metric of a validation; True where it is the best so far (NaN never is)."""
        sign = -1.0 if minimize else 1.0
        better = math.isfinite(value) and (self.best is None or sign * value > sign * self.best)
        if better:
            self.best, self.best_epoch, self.validations_without_improvement = value, self.epoch, 0
        else:
            self.validations_without_improvement += 1
        return better

    def to_state(self) -> State:
        state = dict(vars(self))
        state["best"] = {"value": state.pop("best"), "epoch": state.pop("best_epoch")}
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Place:
        """Keys that are not there (a new stage has weights only) begin afresh."""
        best = state.get("best") or {}
        plain = {name: state[name] for name in vars(cls()) if name in state and name not in ("best", "best_epoch")}
        return cls(**plain, best=best.get("value"), best_epoch=best.get("epoch"))


def machine_facts() -> State:
    """What may explain a difference between two runs: threads and versions."""
    versions = {"cabruca": __version__, "torch": str(torch.__version__), "python": platform.python_version()}
    return {"threads": torch.get_num_threads(), "versions": versions}


def warn_of_other_threads(state: State) -> None:
    """Another number of compute threads adds up in another order: the resumed run is not bitwise the same."""
    before, now = state.get("threads"), torch.get_num_threads()
    if before is not None and before != now:
        log.warning(
            "the checkpoint was made with %d compute threads and this process has %d: results will differ in the "
            "last digits; set OMP_NUM_THREADS=%d for an exact continuation",
            before,
            now,
            before,
        )


def seed_generators(seed: int, runtime: Runtime) -> None:
    """Seed the global generators of this rank (dropout and the like; all else draws by key)."""
    key = draw_key(seed, runtime.rank)
    random.seed(key)
    np.random.seed(key % 2**32)
    torch.manual_seed(key)


def generators(device: torch.device) -> State:
    """The global generators' states, as tensors and plain containers."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: State = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(gauss)],
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_generators(state: State, device: torch.device) -> None:
    """Put `generators()` back."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a plain state dict, every name and shape checked.

    Raises:
        CheckpointError: a weight is missing, unknown or of another shape; names the first.
    """
    ours = model.state_dict()
    for name in [*ours, *weights]:
        there, here = weights.get(name), ours.get(name)
        if there is None or here is None or there.shape != here.shape:
            raise CheckpointError(
                f"weight '{name}' is {_shape(there)} in the checkpoint and {_shape(here)} in this network; "
                "resume with the model section that the checkpoint was trained with"
            )
    model.load_state_dict(dict(weights))


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{list(tensor.shape)}"


def snapshot(value: Any) -> Any:
    """A copy on the CPU of every tensor inside plain containers: later steps do not change it."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(snapshot(item) for item in value)
    return value
