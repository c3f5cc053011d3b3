"""In which number format a run computes: resolved once from the configuration and the device, then one object.

==========  ==========================  =========================================================
precision   weights                     forward pass
==========  ==========================  =========================================================
fp32        float32                     float32
fp64        float64                     float64 (equivalence proofs)
bf16        float32                     autocast to bfloat16 (float32's range: no gradient scaling)
fp16        float32                     autocast to float16 + GradScaler
==========  ==========================  =========================================================
"""

from __future__ import annotations

import functools
import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from cabruca.config.schema import TrainingConfig
from cabruca.errors import DeviceError
from cabruca.runtime import DeviceProbe, TorchProbe

log = logging.getLogger("cabruca")

Name = Literal["fp32", "bf16", "fp16", "fp64"]

_AUTOCAST: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and gradient scaling of one run; in fp32, fp64 and bf16 the scaler passes everything through.

    Args:
        name: the number format, as resolved.
        device: `cpu`, `cuda` or `mps`.
        init_scale: first loss scale of fp16.
    """

    def __init__(self, name: Name, device: str, *, init_scale: float = 65536.0) -> None:
        self.name = name
        self.device = device
        self.scaler = torch.amp.GradScaler(device, init_scale=init_scale, enabled=name == "fp16")

    @property
    def dtype(self) -> torch.dtype:
        """Of weights and pictures."""
        return torch.float64 if self.name == "fp64" else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """The context that forward passes and losses run in."""
        if self.name not in _AUTOCAST:
            return nullcontext()
        return torch.autocast(self.device, dtype=_AUTOCAST[self.name])

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled where the precision scales."""
        scaled: Tensor = self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def unscale(self, optimizer: Optimizer) -> None:
        """Bring gradients back to their true size; before clipping, once an optimizer step."""
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer, *, skip: bool) -> None:
        """Take the optimizer step unless `skip`; then let the scale follow what `unscale` has seen."""
        if not skip:
            self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """The scale and its growth counter; empty where nothing is scaled."""
        state: dict[str, Any] = self.scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a saved scale; a checkpoint of a precision without scale leaves ours as it is."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)


def resolve(training: TrainingConfig, device: str, probe: DeviceProbe | None = None) -> Precision:
    """The precision of a run on `device`.

    Mixed precision that the device does not have becomes fp32 with a warning: slower, never wrong.

    Args:
        training: `precision` and `mixed_precision`.
        device: `cpu`, `cuda` or `mps`.
        probe: what the machine says of its devices; default: torch.

    Raises:
        DeviceError: fp64 on a device without 64-bit floats.
    """
    probe = probe or TorchProbe()
    if training.precision == "fp64":
        if device == "mps":
            raise DeviceError("precision fp64 does not exist on device 'mps'; use --device cpu or precision: fp32")
        return Precision("fp64", device)
    if not training.mixed_precision:
        return Precision("fp32", device)
    there = _mixed_formats(device, probe)
    asked = training.precision
    if asked == "auto" and there:
        return Precision(there[0], device)
    if asked in ("bf16", "fp16") and (asked in there or (asked, device) == ("fp16", "cpu")):
        # fp16 on a CPU works and is slow; it is never chosen, but whoever asks for it gets it (tests do)
        return Precision(asked, device)
    _warn_once(
        f"mixed precision ({asked}) is not available on device '{device}'; training goes on in fp32 "
        f"(there is: {', '.join(there) or 'none'})"
    )
    return Precision("fp32", device)


def _mixed_formats(device: str, probe: DeviceProbe) -> list[Name]:
    """Mixed formats the device computes quickly, the best first: bf16 needs no scaling and cannot overflow."""
    found: list[Name] = ["bf16"] if probe.bf16(device) else []
    if device == "cuda" or (device == "mps" and probe.mps_autocast()):
        found.append("fp16")
    return found


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)
