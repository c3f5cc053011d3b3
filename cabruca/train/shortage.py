"""Memory runs out: told from other errors, answered with a smaller micro-batch, or with advice made of this run."""

from __future__ import annotations

import errno
import gc
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from cabruca.config.load import apply_overrides, config_from_dict
from cabruca.config.schema import Config
from cabruca.config.stages import StageSpan
from cabruca.errors import ConfigError, OutOfMemory
from cabruca.runtime import Runtime
from cabruca.train.device import empty_cache
from cabruca.train.protocols import NOTICE
from cabruca.train.state import Place

log = logging.getLogger("cabruca")

_SAID = (
    *("out of memory", "can't allocate memory", "not enough memory: you tried to allocate", "bad alloc", "bad_alloc"),
    *("cublas_status_alloc_failed", "cudnn_status_alloc_failed", "cannot allocate memory"),
    "unable to find an engine to execute this computation",  # cuDNN, where no algorithm's workspace fits
)
"""How torch's allocators word it: CUDA and MPS, CPU, CPU on Windows, C++; then NVIDIA's libraries and the system."""


LIGHT = "tf_efficientnet_lite0"
"""The backbone of configs/training_config_light.yaml."""

SMALLEST_TILE = 64
"""px; see `config.base.TileSize`."""

NOTHING_LEFT = "nothing is left to make smaller: free memory, or take a larger machine"


class StepTooLarge(Exception):
    """An optimizer step did not fit into memory, on this rank or on another.

    `applied`: a part of it may have been applied to weights or moments, so it cannot be taken again.
    """

    def __init__(self, said: str, *, applied: bool = False) -> None:
        super().__init__(said)
        self.applied = applied


def is_shortage(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: torch's own error, Python's, the system's, or an allocator's
    RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


def in_one_line(error: BaseException) -> str:
    """The allocator's own words, their first sentence."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.split("DefaultCPUAllocator: ")[-1].split(". ")[0][:160].rstrip(".")


@dataclass
class Cut:
    """How an optimizer step is cut: as configured, or finer after a shortage of memory.

    Args:
        config, runtime: as given to `train`.
        place: remembers a finer cut, so that a resumed run begins with it.
    """

    config: Config
    place: Place
    runtime: Runtime

    @property
    def effective_batch(self) -> int:
        """Pictures in an optimizer step; never changes."""
        return self.config.data.batch_size * self.config.training.gradient_accumulation_steps

    @property
    def batch_size(self) -> int:
        """Pictures in a forward pass, over all ranks."""
        asked, shrunk = self.config.data.batch_size, self.place.shrunk
        # what was found out for another batch size, or on other ranks, says nothing of this run
        fits = shrunk.get("asked") == asked and self.effective_batch % shrunk["batch_size"] == 0 if shrunk else False
        if not fits or shrunk["batch_size"] % self.runtime.world_size:
            return asked
        return shrunk["batch_size"]

    @property
    def accumulation(self) -> int:
        return self.effective_batch // self.batch_size

    @property
    def finer(self) -> int | None:
        """The next smaller batch size: the largest divisor of the effective batch that is at most half of now and a
        multiple of the number of ranks; None where there is none."""
        ranks = self.runtime.world_size
        sizes = range(self.batch_size // 2 // ranks * ranks, 0, -ranks)
        return next((size for size in sizes if self.effective_batch % size == 0), None)

    def answer(self, shortage: StepTooLarge, stage: StageSpan) -> None:
        """After a step that did not fit: cut finer where `training.on_oom` is `shrink`.

        Raises:
            OutOfMemory: it is `fail`, or there is no finer cut; with advice.
        """
        before, finer = self.batch_size, self.finer
        if self.config.training.on_oom == "fail" or finer is None or shortage.applied:
            raise OutOfMemory(self._advice(shortage, stage)) from None
        self.place.shrunk = {"asked": self.config.data.batch_size, "batch_size": finer}
        gc.collect()
        empty_cache(self.runtime.device)
        log.info(
            "memory ran out in optimizer step %d (%s): batch_size %d -> %d, accumulation %d -> %d, effective batch %d "
            "as before (training.on_oom: shrink)",
            *(self.place.step + 1, shortage, before, finer, self.effective_batch // before, self.accumulation),
            self.effective_batch,
            extra=NOTICE,
        )

    def _advice(self, shortage: StepTooLarge, stage: StageSpan) -> str:
        """What helped against "Out of Memory" before, in this run's numbers; the first remedy costs nothing."""
        tile, device = stage.tile_size, self.runtime.device.type
        remedies: list[str] = []
        if (finer := self.finer) is not None:
            by_itself = "" if shortage.applied else ", or --set training.on_oom=shrink, which does it by itself"
            remedies.append(
                f"give --batch-size {finer} --grad-accum {self.effective_batch // finer} (the effective batch stays "
                f"{self.effective_batch}){by_itself}"
            )
        if tiles := self._smaller_tiles(tile):
            remedies.append(f"take smaller tiles: {tiles}")
        if device == "cuda" and not self.config.training.mixed_precision:
            remedies.append("give --mixed-precision")
        if self.config.model.backbone != LIGHT:
            remedies.append("take the light network: --config configs/training_config_light.yaml")
        if device != "cpu":
            remedies.append("compute on the CPU: --device cpu")
        return (
            f"out of memory on {device} in optimizer step {self.place.step + 1} ({shortage}): batch_size "
            f"{self.batch_size} x {tile} px tiles does not fit; {'; or '.join(remedies) or NOTHING_LEFT}"
        )

    def _smaller_tiles(self, tile: int) -> str:
        """The flags that half the tile's side, as far as the configuration allows it; empty where it does not."""
        if self.config.training.stages:
            return "a smaller tile_size in training.stages" if tile > SMALLEST_TILE else ""
        half = max(SMALLEST_TILE, tile // 2 // 32 * 32)
        if half == tile:
            return ""
        flags = {"data.tile_size": half}
        if not _allowed(self.config, flags):
            flags["data.overlap"] = half // 8
        return _as_flags(flags) if _allowed(self.config, flags) else ""


def validation_advice(config: Config, error: BaseException) -> OutOfMemory:
    """The error of a validation that did not fit into memory."""
    validation = config.validation
    ways: list[dict[str, int]] = []
    if validation.batch_size > 1:
        ways.append({"validation.batch_size": validation.batch_size // 2})
    half = max(64, validation.max_side_px // 2 // 32 * 32)
    if half < validation.max_side_px:
        ways.append({"validation.max_side_px": half})
        if not _allowed(config, ways[-1]):
            ways[-1]["data.overlap"] = half // 8
    remedies = [_as_flags(flags) for flags in ways if _allowed(config, flags)]
    return OutOfMemory(
        f"out of memory in the validation ({in_one_line(error)}): validation.batch_size {validation.batch_size} x "
        f"validation.max_side_px {validation.max_side_px} does not fit; "
        + (f"give {', or '.join(remedies)}" if remedies else NOTHING_LEFT)
    )


def _allowed(config: Config, flags: Mapping[str, int]) -> bool:
    """Whether a person who gives these flags beside their file is not refused."""
    try:
        config_from_dict(apply_overrides(config.to_dict(), flags))
    except ConfigError:
        return False
    return True


def _as_flags(flags: Mapping[str, int]) -> str:
    return " ".join(f"--set {key}={value}" for key, value in flags.items())
