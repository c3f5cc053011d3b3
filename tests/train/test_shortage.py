"""Memory runs out: advice in this run's numbers, or a finer cut with which the run ends as if it had begun with it."""

from __future__ import annotations

import logging
import os
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_run import go
from line_task import LineTask, Points, line_config
from memory_reporter import MemoryReporter

from cabruca.config.load import apply_overrides, config_from_dict
from cabruca.config.stages import stages_of
from cabruca.errors import CabrucaError, OutOfMemory
from cabruca.runtime import Runtime
from cabruca.train.loop import train
from cabruca.train.shortage import Cut, StepTooLarge, is_shortage, validation_advice
from cabruca.train.state import Place

STATM = Path("/proc/self/statm")
CPU = "[enforce fail at alloc.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"


class Hungry(LineTask):
    """A pass over more than `room` pictures does not fit."""

    def __init__(self, room: int, error: type[Exception] = torch.OutOfMemoryError, **values: Any) -> None:
        super().__init__(**values)
        self.room, self.error = room, error
        self.refused: list[int] = []

    def losses(self, model: Any, batch: Points) -> Any:
        losses = super().losses(model, batch)
        if len(batch.x) > self.room:
            self.refused.append(len(batch.x))
            raise self.error("MPS backend out of memory (MPS allocated: 9 GB). Tried to allocate 2 GB")
        return losses


def shrinking(batch_size: int, accumulation: int = 1, **training: Any) -> dict[str, Any]:
    own = {"on_oom": "shrink", "precision": "fp64", "gradient_accumulation_steps": accumulation, **training}
    return {"data": {"batch_size": batch_size}, "training": own}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB, max allowed: 9 GB)."),
        RuntimeError(CPU),
        RuntimeError("[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("unable to mmap 1024 bytes from file <f>: Cannot allocate memory (12)"),
        OSError(12, "Cannot allocate memory"),
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((9,), np.dtype(float)),  # type: ignore[attr-defined]
    ],
)
def test_a_shortage_is_told(error: BaseException) -> None:
    assert is_shortage(error)


def test_other_errors_are_no_shortage() -> None:
    for error in (RuntimeError("shape mismatch"), ValueError("out of memory"), OSError(28, "No space left")):
        assert not is_shortage(error)
    with pytest.raises(KeyError):
        go(Hungry(1, error=KeyError), **shrinking(4))


def test_advice_is_of_this_runs_numbers() -> None:
    with pytest.raises(OutOfMemory) as raised:
        go(Hungry(2), data={"batch_size": 6, "tile_size": 512}, training={"gradient_accumulation_steps": 2})
    assert str(raised.value) == (
        "out of memory on cpu in optimizer step 1 (MPS backend out of memory (MPS allocated: 9 GB)): batch_size 6 x "
        "512 px tiles does not fit; give --batch-size 3 --grad-accum 4 (the effective batch stays 12), or --set "
        "training.on_oom=shrink, which does it by itself; or take smaller tiles: --set data.tile_size=256; or take the "
        "light network: --config configs/training_config_light.yaml"
    )
    assert isinstance(raised.value, CabrucaError)  # exit code 2, no traceback


@pytest.mark.parametrize(
    ("device", "training", "wanted", "unwanted"),
    [
        ("cuda", {}, ["--mixed-precision", "--device cpu"], ["training.stages"]),
        ("cuda", {"mixed_precision": True}, ["--device cpu"], ["--mixed-precision"]),
        ("mps", {}, ["--device cpu", "training_config_light.yaml"], ["--mixed-precision"]),
        (
            "cpu",
            {"stages": [{"tile_size": 256, "epochs": 1}]},
            ["a smaller tile_size in training.stages"],
            ["--device"],
        ),
    ],
)
def test_advice_fits_device_and_settings(
    device: str, training: dict[str, Any], wanted: list[str], unwanted: list[str]
) -> None:
    config = line_config(data={"batch_size": 1}, training=training)
    cut = Cut(config, Place(step=7), Runtime(0, 1, 0, torch.device(device)))
    with pytest.raises(OutOfMemory) as raised:
        cut.answer(StepTooLarge("full"), stages_of(config)[0])
    said = str(raised.value)
    assert f"out of memory on {device} in optimizer step 8 (full)" in said
    assert all(text in said for text in wanted)
    assert not any(text in said for text in [*unwanted, "--batch-size"])


def advice(**sections: Any) -> str:
    config = line_config(**sections)
    with pytest.raises(OutOfMemory) as raised:
        Cut(config, Place(), Runtime.single()).answer(StepTooLarge("full"), stages_of(config)[0])
    return str(raised.value)


def flags_in(text: str) -> dict[str, Any]:
    return {key: int(value) for key, value in re.findall(r"--set ([a-z_.]+)=(\d+)", text)}


@pytest.mark.parametrize(("tile", "overlap"), [(512, 64), (96, 16), (128, 64), (512, 300)])
def test_smaller_tiles_are_offered_as_the_schema_takes_them(tile: int, overlap: int) -> None:
    data = {"batch_size": 1, "tile_size": tile, "overlap": overlap}
    flags = flags_in(advice(data=data))
    assert flags["data.tile_size"] < tile
    config_from_dict(apply_overrides(line_config(data=data).to_dict(), flags))


def test_what_cannot_be_smaller_is_not_offered() -> None:
    light = {"backbone": "tf_efficientnet_lite0"}
    smallest = {"batch_size": 1, "tile_size": 64, "overlap": 16}
    assert flags_in(advice(data=smallest)) == {}
    stages = [{"tile_size": 64, "epochs": 1}]
    assert "training.stages" not in advice(data={"batch_size": 1}, training={"stages": stages})
    assert "light network" in advice(data=smallest)
    assert advice(data=smallest, model=light).endswith("free memory, or take a larger machine")


@pytest.mark.parametrize(("side", "overlap"), [(1024, 64), (96, 16), (128, 100)])
def test_advice_for_the_validation_is_as_the_schema_takes_it(side: int, overlap: int) -> None:
    sections = {"data": {"overlap": overlap}, "validation": {"max_side_px": side, "batch_size": 1}}
    config = line_config(**sections)
    flags = flags_in(str(validation_advice(config, MemoryError())))
    assert flags["validation.max_side_px"] < side
    config_from_dict(apply_overrides(config.to_dict(), flags))


@pytest.mark.parametrize(
    ("batch_size", "accumulation", "ranks", "finer"),
    [(8, 1, 1, 4), (6, 2, 1, 3), (6, 1, 1, 3), (3, 2, 1, 1), (5, 1, 1, 1), (1, 8, 1, None), (8, 1, 2, 4), (6, 2, 2, 2)],
)
def test_the_finer_cut_is_the_largest_divisor_that_fits_the_ranks(
    batch_size: int, accumulation: int, ranks: int, finer: int | None
) -> None:
    config = line_config(data={"batch_size": batch_size}, training={"gradient_accumulation_steps": accumulation})
    assert Cut(config, Place(), Runtime(0, ranks, 0, torch.device("cpu"))).finer == finer


@pytest.mark.parametrize("room", [1, 2, 4])
def test_a_shrunk_run_ends_as_one_that_began_small(room: int, caplog: pytest.LogCaptureFixture) -> None:
    """Memory runs out in the first step: 8 -> 4 -> 2 -> 1; dropout and all, bitwise."""
    task = Hungry(room, dropout=0.4)
    with caplog.at_level(logging.INFO, "cabruca"):
        _, shrunk = go(task, **shrinking(8))
    _, small = go(LineTask(dropout=0.4), **shrinking(room, 8 // room))
    for name, weight in small.state["model"].items():
        assert torch.equal(shrunk.state["model"][name], weight), name
    assert task.refused == [size for size in (8, 4, 2) if size > room]
    assert [r.metrics["memory/batch_size"] for r in shrunk.records] == [room] * 4
    told = [r.getMessage() for r in caplog.records if "memory ran out" in r.getMessage()]
    assert told[0] == (
        "memory ran out in optimizer step 1 (MPS backend out of memory (MPS allocated: 9 GB)): batch_size 8 -> 4, "
        "accumulation 1 -> 2, effective batch 8 as before (training.on_oom: shrink)"
    )
    assert all(getattr(r, "notice", False) for r in caplog.records if "memory ran out" in r.getMessage())


class Later(Hungry):
    """Fits until the third step of the second epoch."""

    def losses(self, model: Any, batch: Points) -> Any:
        self.calls = getattr(self, "calls", 0) + 1
        room, self.room = self.room, self.room if self.calls >= 6 else 99
        try:
            return super().losses(model, batch)
        finally:
            self.room = room


def test_a_run_that_shrinks_in_the_middle_learns_the_same() -> None:
    task = Later(3, samples=13)
    _, shrunk = go(task, **shrinking(4))
    _, whole = go(LineTask(samples=13), **shrinking(4))
    torch.testing.assert_close(shrunk.state["model"], whole.state["model"], rtol=1e-12, atol=1e-12)
    assert task.refused == [4]
    assert [len(batches) for _, batches in task.seen] == [4, 4, 5, 7, 7]  # the second epoch's rest is cut again
    for ours, theirs in zip(shrunk.records, whole.records, strict=True):
        assert ours.metrics["train/total_loss"] == pytest.approx(theirs.metrics["train/total_loss"], rel=1e-12)
        assert ours.step == theirs.step


def test_a_resumed_run_begins_with_the_cut_that_fits() -> None:
    _, first = go(Hungry(2), MemoryReporter(stop_at_step=2), **shrinking(8))
    assert first.state["shrunk"] == {"asked": 8, "batch_size": 2}
    task = Hungry(2)
    _, second = go(task, MemoryReporter(resume_from=first.state), **shrinking(8))
    assert task.refused == []
    _, whole = go(Hungry(2), **shrinking(8))
    assert torch.equal(second.state["model"]["slope"], whole.state["model"]["slope"])
    task = Hungry(99)
    go(task, MemoryReporter(resume_from=first.state), **shrinking(4, 2))  # another batch size is asked for: it is tried
    assert max(len(batch) for _, batches in task.seen for batch in batches) == 4


def test_the_smallest_cut_ends_with_advice() -> None:
    task, reporter = Hungry(0), MemoryReporter()
    with pytest.raises(OutOfMemory, match="batch_size 1 x 512 px tiles does not fit; take smaller tiles: --set data"):
        go(task, reporter, **shrinking(4))
    assert task.refused == [4, 2, 1]
    assert isinstance(reporter.finished[0][1], OutOfMemory)


def test_a_shortage_in_the_update_is_not_redone() -> None:
    """The moments of the first step may be what does not fit: a part of the weights may have moved already."""

    def full(self: Any, *_: Any, **__: Any) -> None:
        raise RuntimeError(CPU)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", full)
        with pytest.raises(OutOfMemory, match=r"step 1 \(can't allocate memory: you tried to allocate 9\)") as raised:
            go(**shrinking(4))
    assert "give --batch-size 2 --grad-accum 2" in str(raised.value)
    assert "by itself" not in str(raised.value)


def test_a_validation_that_does_not_fit_says_what_to_set() -> None:
    class Wide(LineTask):
        def validate(self, *_: Any, **__: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(OutOfMemory) as raised:
        go(Wide(), validation={"batch_size": 4})
    assert str(raised.value) == (
        "out of memory in the validation (CUDA out of memory): validation.batch_size 4 x validation.max_side_px 1024 "
        "does not fit; give --set validation.batch_size=2, or --set validation.max_side_px=512"
    )


class Real(LineTask):
    """64 MB a picture."""

    def losses(self, model: Any, batch: Points) -> Any:
        ballast = torch.ones(len(batch.x) * 2**24)
        losses = super().losses(model, batch)
        return type(losses)(losses.total + 0 * ballast[0], losses.parts)


def _under_a_limit() -> None:
    """A forked child with room for 240 MB more: the allocator itself says no."""
    go(LineTask(), training={"num_epochs": 1})  # what is imported and started once is not of the step
    now = int(STATM.read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + 240 * 2**20, resource.RLIM_INFINITY))
    reporter = MemoryReporter()
    config = line_config(**shrinking(8, num_epochs=1))
    train(config, Real(samples=8), runtime=Runtime.single(), reporter=reporter)
    assert reporter.records[0].metrics["memory/batch_size"] == 2
    with pytest.raises(OutOfMemory, match="you tried to allocate 536870912 bytes"):
        train(line_config(data={"batch_size": 8}), Real(samples=8), runtime=Runtime.single(), reporter=MemoryReporter())


@pytest.mark.skipif(not STATM.exists(), reason="needs Linux's /proc")
def test_the_real_allocator_under_a_real_limit() -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            _under_a_limit()
            code = 0
        except BaseException as error:  # the child must not run the rest of the test session
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
