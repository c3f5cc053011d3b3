"""The checkpoints that a run has kept: what each is, whether it is whole, and which may go."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cabruca.errors import CheckpointError, RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.train import sidecar

Condition = Literal["intact", "damaged", "missing", "no sidecar", "whole, not vouched for"]

_NUMBERED = re.compile(r"checkpoint_epoch_(\d+)\.pth")


@dataclass(frozen=True)
class Kept:
    """One checkpoint file, as its sidecar describes it.

    Attributes:
        epoch, step, metric: as written then; None where no sidecar tells. bytes: of the file, 0 where it is missing.
        condition: `intact`, its sha256 is the sidecar's; `damaged`, it is not; `missing`, there is only a sidecar;
            `no sidecar`, nothing vouches for it; `whole, not vouched for`, so it is, and it has been read.
    """

    path: Path
    epoch: int | None
    step: int | None
    metric: float | None
    bytes: int
    condition: Condition

    @property
    def number(self) -> int | None:
        """N of a `checkpoint_epoch_N.pth`, else None."""
        found = _NUMBERED.fullmatch(self.path.name)
        return int(found[1]) if found else None

    def to_dict(self) -> dict[str, Any]:
        """Plain containers."""
        return {**vars(self), "path": str(self.path), "name": self.path.name}


def kept_by(run: RunDir) -> list[Kept]:
    """Every checkpoint of the run, best and latest first, then by number. Each file is read once, for its sha256.

    Raises:
        RunError: there is none.
    """
    paths = paths_in(run.checkpoints)
    if not paths:
        raise RunError(f"run {run.path} has kept no checkpoint; train an epoch first, or give another run")
    return in_order([look_at(path) for path in paths])


def in_order(found: Iterable[Kept]) -> list[Kept]:
    """Best and latest first, then by number."""
    return sorted(found, key=lambda one: (one.number is not None, one.number or 0, one.path.name))


def paths_in(folder: Path) -> set[Path]:
    """Checkpoints in a folder, also those of which only the sidecar is left."""
    return {*folder.glob("*.pth"), *(path.with_suffix(".pth") for path in folder.glob("[!.]*.json"))}


def goes_on_from(run: RunDir) -> Path | None:
    """The checkpoint that `--resume auto` would take: the newest intact one, whatever it is called."""
    return sidecar.newest_intact(run.checkpoints)


def verified(found: Sequence[Kept]) -> list[Kept]:
    """`found`, what has no sidecar read as a checkpoint: whole, or damaged."""
    return [_read(one) if one.condition == "no sidecar" else one for one in found]


def _read(one: Kept) -> Kept:
    from cabruca.train import checkpoint  # here: it needs torch, and looking at sidecars does not

    try:
        checkpoint.read(one.path)
    except CheckpointError:
        return replace(one, condition="damaged")
    return replace(one, condition="whole, not vouched for")


def look_at(path: Path) -> Kept:
    """One checkpoint; its file is read, for the sha256."""
    facts = sidecar.sidecar_of(path)
    condition: Condition = "intact"
    if facts is None:
        facts = _unproved(path.with_suffix(".json"))
        told = path.with_suffix(".json").is_file()
        condition = "missing" if not path.is_file() else "damaged" if told else "no sidecar"
    size = path.stat().st_size if path.is_file() else 0
    return Kept(path, facts.get("epoch"), facts.get("step"), facts.get("metric"), size, condition)


def _unproved(path: Path) -> dict[str, Any]:
    """What a sidecar says whose file is not the one it was written for."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def choose(run: RunDir, name: str | None = None) -> Path:
    """The checkpoint of that name (`best`, `latest`, `epoch_10`, or the file's name); None: best, else latest.

    Raises:
        CheckpointError: there is no such one; names those that there are.
    """
    if name is None:
        return run.best if run.best.is_file() or not run.latest.is_file() else run.latest
    for path in (run.checkpoints / name, run.checkpoints / f"checkpoint_{name}.pth"):
        if path.is_file():
            return path
    there = ", ".join(sorted(path.stem.removeprefix("checkpoint_") for path in run.checkpoints.glob("*.pth")))
    raise CheckpointError(f"run {run.path} has no checkpoint '{name}'; use one of {there or 'another run'}")


@dataclass(frozen=True)
class Pruning:
    """What goes and what stays. `freed_bytes`: of the disk; a file with a second name that stays frees nothing."""

    removed: tuple[Path, ...]
    kept: tuple[Path, ...]
    freed_bytes: int


def prune(run: RunDir, keep: int, *, dry_run: bool = False) -> Pruning:
    """Remove numbered checkpoints but the `keep` with the highest numbers.

    Best, latest and files of other names always stay, and so does the newest intact checkpoint, whatever it is called:
    it is what `--resume auto` goes on from.

    Args:
        dry_run: only look.

    Raises:
        RunError: there is no checkpoint. CheckpointError: the disk refused.
    """
    there = kept_by(run)
    numbered = sorted((one for one in there if one.number is not None), key=lambda one: one.number or 0)
    newest = goes_on_from(run)
    old = numbered[: len(numbered) - keep] if keep < len(numbered) else []
    gone = [one.path for one in old if one.path != newest]
    freed = bytes_freed([path for path in gone if path.is_file()])
    if not dry_run:
        for path in gone:
            remove(path)
    return Pruning(tuple(gone), tuple(one.path for one in there if one.path not in gone), freed)


def bytes_freed(paths: Sequence[Path]) -> int:
    """What the disk gets back when these go: a file with a second name that stays frees nothing."""
    stats = [path.stat() for path in paths]
    names = Counter((s.st_dev, s.st_ino) for s in stats)
    last = {(s.st_dev, s.st_ino): s.st_size for s in stats if names[s.st_dev, s.st_ino] >= s.st_nlink}
    return sum(last.values())


def remove(path: Path) -> None:
    """Remove a checkpoint and its sidecar.

    Raises:
        CheckpointError: the disk refused.
    """
    try:
        path.unlink(missing_ok=True)  # before its sidecar: a sidecar alone is harmless, a file alone is not vouched for
        path.with_suffix(".json").unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {path} cannot be removed ({error.strerror}); mend the permissions"
        ) from error
