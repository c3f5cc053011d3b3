"""Batches, made in this process or by loader processes; what comes out is the same.

Loader processes live as long as the windows they serve, so that decoded pictures stay in their memory from epoch to
epoch. They ignore Ctrl-C and SIGTERM, which are for the training process: it finishes its step and ends them.
"""

from __future__ import annotations

import atexit
import os
import signal
import weakref
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cabruca.data.dataset import EvaluationWindows, TrainWindows
from cabruca.errors import CabrucaError
from cabruca.runtime import Runtime
from cabruca.structures import Batch, CroppedMasks, Crowns, Regions, Sample, collate


def train_batches(
    windows: TrainWindows, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime, *, pin_memory: bool
) -> Iterator[Batch]:
    """One batch on the CPU for each list of sample indices, in order."""
    items = [[(epoch, i) for i in batch] for batch in index_batches]
    return _batches(windows, items, runtime, pin_memory=pin_memory)


def evaluation_batches(
    windows: EvaluationWindows, indices: Sequence[int], runtime: Runtime, *, batch_size: int
) -> Iterator[Batch]:
    """Batches of the windows at `indices`, in order; neighbours of one padded size share a batch."""
    items: list[list[tuple[int, int]]] = []
    for i in indices:
        fits = items and len(items[-1]) < batch_size and windows.padded_hw(items[-1][-1][1]) == windows.padded_hw(i)
        if fits:
            items[-1].append((0, i))
        else:
            items.append([(0, i)])
    return _batches(windows, items, runtime, pin_memory=False)


Item = tuple[int, int]
"""Epoch (0 in evaluation) and index."""


class _Order:
    """The batch sampler of a loader that outlives an epoch: hands out the lists it was given last."""

    def __init__(self) -> None:
        self.items: Sequence[Sequence[Item]] = ()

    def __iter__(self) -> Iterator[Sequence[Item]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class _Windows(Dataset[Any]):
    """Gives samples, or the error that one raised: torch would wrap its one line in a traceback."""

    def __init__(self, windows: TrainWindows | EvaluationWindows) -> None:
        self._windows = windows

    def __getitem__(self, item: Item) -> Sample | CabrucaError:
        try:
            if isinstance(self._windows, TrainWindows):
                return self._windows.get(*item)
            return self._windows.get(item[1])
        except CabrucaError as error:
            return error


@dataclass(frozen=True)
class _Packed:
    """A batch whose crowns are joined, ignored regions after them: each tensor that crosses to another process costs a
    file descriptor. `extents`: diameter and centre. `counts`: crowns, their pixels, regions, their pixels."""

    batch: Batch
    boxes: Tensor
    labels: Tensor
    pixels: Tensor
    rects: Tensor
    extents: Tensor
    counts: list[tuple[int, int, int, int]]

    def pin_memory(self) -> _Packed:
        return replace(self, batch=self.batch.pin_memory())


def _pack(samples: list[Sample | CabrucaError]) -> _Packed | CabrucaError:
    for sample in samples:
        if isinstance(sample, CabrucaError):
            return sample
    batch = collate(cast(list[Sample], samples))
    crowns = batch.crowns
    both: list[Crowns | Regions] = [part for c in crowns for part in (c, c.ignored)]
    return _Packed(
        batch=replace(batch, crowns=[]),
        boxes=torch.cat([c.boxes_xyxy_px for c in both]),
        labels=torch.cat([c.labels for c in both]),
        pixels=torch.cat([c.masks.pixels for c in both]),
        rects=torch.cat([c.masks.rect_xywh_px for c in both]),
        extents=torch.cat([torch.cat([c.diameter_px[:, None], c.centre_xy_px], dim=1) for c in crowns]),
        counts=[(len(c), c.masks.pixels.numel(), len(c.ignored), c.ignored.masks.pixels.numel()) for c in crowns],
    )


def _unpack(packed: _Packed | CabrucaError) -> Batch:
    if isinstance(packed, CabrucaError):
        raise packed
    rows = [n for crowns, _, regions, _ in packed.counts for n in (crowns, regions)]
    pixels = [n for _, crowns, _, regions in packed.counts for n in (crowns, regions)]
    parts = [
        (b, n, CroppedMasks(p, r))
        for b, n, p, r in zip(
            torch.split(packed.boxes, rows),
            torch.split(packed.labels, rows),
            torch.split(packed.pixels, pixels),
            torch.split(packed.rects, rows),
            strict=True,
        )
    ]
    extents = torch.split(packed.extents, rows[::2])
    crowns = [
        Crowns(*own, diameter_px=e[:, 0], centre_xy_px=e[:, 1:], ignored=Regions(*region))
        for own, region, e in zip(parts[::2], parts[1::2], extents, strict=True)
    ]
    return replace(packed.batch, crowns=crowns)


def _deaf(leaving: Tensor, _: int) -> None:
    """Signals are for the training process; but once it lets its loader go, SIGTERM ends this one."""

    def on_terminate(*_: object) -> None:
        if bool(leaving):
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)


class _Loader(Protocol):
    def __iter__(self) -> Iterator[Any]: ...


def _batches(
    windows: TrainWindows | EvaluationWindows, items: list[list[Item]], runtime: Runtime, *, pin_memory: bool
) -> Iterator[Batch]:
    # kept on the windows themselves, so that the processes end with them
    kinds: dict[tuple[int, bool], tuple[_Order, _Loader]] = windows.loaders
    kind = (runtime.loaders, pin_memory)
    if kind not in kinds:
        order = _Order()
        kinds[kind] = (order, _make_loader(windows, order, *kind))
    order, loader = kinds[kind]
    order.items = items
    for packed in loader:
        yield _unpack(packed)


def _make_loader(windows: TrainWindows | EvaluationWindows, order: _Order, loaders: int, pin_memory: bool) -> _Loader:
    # The loader reads a shallow copy, which knows no loaders: in a circle, Python would close the queues to the
    # processes before it tells these to end, and then wait 10 seconds for them.
    leaving = torch.zeros((), dtype=torch.uint8)
    leaving.share_memory_()  # type: ignore[no-untyped-call]
    loader: DataLoader[Any] = DataLoader(
        _Windows(copy(windows)),
        batch_sampler=cast(Any, order),
        num_workers=loaders,
        collate_fn=_pack,
        pin_memory=pin_memory,
        worker_init_fn=partial(_deaf, leaving) if loaders else None,
        persistent_workers=loaders > 0,
        generator=torch.Generator(),  # its own: the global one must not be touched
    )
    # Where they still run when the loader goes, or at exit, Python sends SIGTERM and waits for them.
    weakref.finalize(loader, leaving.fill_, 1)
    atexit.register(leaving.fill_, 1)
    return cast(_Loader, loader)
