"""Checkpoint files: written so that no kill can leave a broken one, read so that none can run code.

A checkpoint `name.pth` has a sidecar `name.json`, `{epoch, step, metric, bytes, sha256, time}`, that tells other
programs what is inside without unpickling anything, and holds what validation said beside its metrics (`beside` of the
state: the operating point). Both are prepared under hidden temporary names in the same
folder, flushed to disk, and then renamed: the `.pth` first, its `.json` after it. Whoever looks between the two
renames finds the new `.pth` vouched for by the prepared sidecar, so there is no moment without an intact file.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cabruca.durable import sync_folder
from cabruca.errors import CheckpointError
from cabruca.train.protocols import State
from cabruca.train.sidecar import Sidecar, is_intact, newest_intact, sha256_of, sidecar_of, temporary_name, vouched

__all__ = ["BESIDE", "FORMAT_VERSION", "amend", "copy", "is_intact", "newest_intact", "read", "sidecar_of", "write"]

FORMAT_VERSION = 1
"""Raised when the keys of a State change their meaning; a reader refuses what is newer than itself."""

BESIDE = "beside"
"""Key of a State whose mapping goes into the sidecar too."""


def write(path: str | Path, state: State, *, metric: float | None) -> None:
    """Write `state` to `path` and its sidecar beside it, atomically and durably.

    Args:
        path: ends in `.pth`; the folder is made where it is missing.
        state: tensors and plain containers only; `format_version` is added.
        metric: the monitored metric, for the sidecar; None or NaN become null.

    Raises:
        CheckpointError: something in `state` could not be read back with `weights_only=True`, or the disk refused.
    """
    path = Path(path)
    state = {"format_version": FORMAT_VERSION, **state}
    _refuse_objects(state, "state")
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a temporary name left by a kill inside `copy` can be a second name of a good file: never write into it
        temporary.unlink(missing_ok=True)
        with temporary.open("wb") as file:
            torch.save(state, file)
            _flush(file.fileno())
        sidecar = {
            **(state.get(BESIDE) or {}),
            "epoch": state.get("epoch"),
            "step": state.get("step"),
            "metric": metric if metric is not None and math.isfinite(metric) else None,
            "bytes": temporary.stat().st_size,
            "sha256": sha256_of(temporary),
            "time": time.time(),
        }
        _publish(temporary, path, sidecar)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"checkpoint {path} could not be written ({_one_line(error)}); the one before it is untouched: "
            "free disk space or choose another --output-dir"
        ) from error


def copy(src: str | Path, dst: str | Path) -> None:
    """Give the checkpoint `src` the second name `dst`, sidecar too, as atomically as `write`.

    A hard link where the file system has them: `write` never changes a file in place, so the two names cannot
    disturb each other.

    Raises:
        CheckpointError: `src` has no sidecar that vouches for it, or the disk refused.
    """
    src, dst = Path(src), Path(dst)
    sidecar = sidecar_of(src)
    if sidecar is None:
        raise CheckpointError(f"checkpoint {src} has no sidecar that matches it; write it again before copying it")
    temporary = temporary_name(dst)
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            os.link(src, temporary)
        except OSError:  # no hard links here (FAT, some network shares)
            temporary.write_bytes(src.read_bytes())
            with temporary.open("rb+") as file:
                _flush(file.fileno())
        _publish(temporary, dst, sidecar)
    except OSError as error:
        raise CheckpointError(f"checkpoint {dst} could not be written ({_one_line(error)}); free disk space") from error
    finally:
        temporary.unlink(missing_ok=True)  # renaming one name of a file onto another name of it leaves both


def amend(path: str | Path, facts: dict[str, Any]) -> None:
    """Put `facts` into the sidecar of `path`, whose other keys stay, atomically; the `.pth` is not touched. One that
    came without a sidecar gets one.

    Raises:
        CheckpointError: missing or damaged, or the disk refused.
    """
    path = Path(path)
    sidecar = sidecar_of(path)
    if sidecar is None:
        state = read(path)
        sidecar = {"epoch": state.get("epoch"), "step": state.get("step"), "metric": None}
        sidecar |= {"bytes": path.stat().st_size, "sha256": sha256_of(path), "time": path.stat().st_mtime}
    try:
        _prepare(path, {**sidecar, **facts}).replace(path.with_suffix(".json"))
        sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"{path.stem}.json beside {path} could not be written ({_one_line(error)}); free disk space, or mend the "
            "permissions"
        ) from error


def read(path: str | Path) -> State:
    """Read a checkpoint on the CPU, tensors and plain containers only.

    Raises:
        CheckpointError: missing, damaged, written by a later release, another program's, or one that carries code.
    """
    path = Path(path)
    if not path.is_file():
        best = "RUN/checkpoints/checkpoint_best.pth"
        raise CheckpointError(f"checkpoint {path} is not there; give the path of a .pth file, such as {best}")
    if vouched(path) is False:
        raise CheckpointError(f"checkpoint {path} is damaged (its sha256 is not the one in {path.stem}.json); {_OTHER}")
    state = _load(path)
    if not isinstance(state, dict) or not isinstance(state.get("format_version"), int):
        raise CheckpointError(f"{path} is not a cabruca checkpoint (no format_version inside); {_OTHER}")
    if state["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {path} has format version {state['format_version']} and this release reads up to "
            f"{FORMAT_VERSION}; install a newer cabruca"
        )
    return state


_OTHER = "use another checkpoint of the run"


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found:
            raise CheckpointError(
                f"checkpoint {path} carries Python code ({found[1]}) and is not opened; "
                "save tensors and plain containers only"
            ) from error
        raise CheckpointError(f"checkpoint {path} is damaged or not a checkpoint; {_OTHER}") from error
    except Exception as error:  # a torn file fails in many ways: RuntimeError, EOFError, KeyError, ValueError
        raise CheckpointError(f"checkpoint {path} is damaged ({_one_line(error)}); {_OTHER}") from error


def _publish(temporary: Path, path: Path, sidecar: Sidecar) -> None:
    """Prepare the sidecar, then rename file and sidecar, then make the renames durable."""
    prepared = _prepare(path, sidecar)
    temporary.replace(path)
    prepared.replace(path.with_suffix(".json"))
    sync_folder(path.parent)


def _prepare(path: Path, sidecar: dict[str, Any]) -> Path:
    """The sidecar of `path` on disk, under its hidden name."""
    prepared = temporary_name(path.with_suffix(".json"))
    with prepared.open("w", encoding="utf-8") as file:
        json.dump(sidecar, file)
        file.flush()
        _flush(file.fileno())
    return prepared


def _flush(descriptor: int) -> None:
    os.fsync(descriptor)


def _one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _refuse_objects(value: Any, where: str) -> None:
    """What is not a tensor or a plain container would be written and then refused by `read`: say so now."""
    if type(value) is dict:
        for key, item in value.items():
            _refuse_objects(key, f"a key of {where}")
            _refuse_objects(item, f"{where}.{key}")
    elif type(value) in (list, tuple):
        for i, item in enumerate(value):
            _refuse_objects(item, f"{where}[{i}]")
    elif not (value is None or type(value) in (str, int, float, bool) or isinstance(value, Tensor)):
        raise CheckpointError(
            f"{where} is a {type(value).__name__}, which a checkpoint cannot hold; "
            "use tensors, numbers, strings, dict, list, tuple"
        )
