"""A copy of a run's folder in a place that every machine reaches: `distributed.storage_path`.

Rank 0 copies what has changed after each report; whoever goes on with the run and has an older folder, or none, fetches
it first. Each file is whole or not there, and a checkpoint's `.json` comes after its `.pth`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cabruca.config.schema import Config
from cabruca.distributed.shared_folder import SharedFolder, inside, is_temporary, line_of, opened
from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.train.protocols import Record, Reporter, Save, State, TrainResult

__all__ = ["Mirror", "MirroredReporter", "inside", "mirror_of", "opened"]

_ORDER = (".pth", "", ".json")
"""Files of a kind are copied before those of the next: who vouches comes last."""


class Mirror(SharedFolder):
    """The folder `<storage_path>/<run>`; arguments as `SharedFolder`'s."""

    def __init__(self, storage_path: str, run: str, filesystem: Any = None) -> None:
        super().__init__(storage_path, run, filesystem)
        self._storage, self._given = storage_path, filesystem

    def beside(self, run: str) -> Mirror:
        """Of another run in the same place."""
        return Mirror(self._storage, run, self._given)

    def push(self, run_dir: RunDir, only: Sequence[Path] = ()) -> None:
        """Copy every file that is new or has changed since the last call.

        Args:
            only: files and folders of the run; empty: all of it.

        Raises:
            RunError: the place refuses.
        """
        places = [found for place in only or [run_dir.path] for found in (place, *place.rglob("*"))]
        files = [path for path in places if path.is_file() and not is_temporary(path)]
        try:
            for path in sorted(files, key=_order):
                self.send(path, path.relative_to(run_dir.path).as_posix())
        except OSError as error:
            raise RunError(
                f"distributed.storage_path {self.uri} cannot be written ({line_of(error)}); the run's own folder is "
                "whole"
            ) from error

    def fetch(self, run_dir: RunDir, *, weights: bool = True) -> bool:
        """Copy the run from there, where it is further on than `run_dir` or `run_dir` is not there.

        Args:
            weights: the checkpoints too; without them what is left is for people and for the study's driver.

        Returns:
            Whether anything was copied.

        Raises:
            RunError: the place refuses.
        """
        try:
            if self.place() <= self._place_here(run_dir, weights=weights) and run_dir.status.is_file():
                return False
            files = sorted(self.names(), key=lambda name: _order(Path(name)))
            for name in files:
                if weights or not name.endswith(".pth"):
                    self.get(name, run_dir.path / name)
        except OSError as error:
            raise RunError(f"distributed.storage_path {self.uri} cannot be read ({line_of(error)})") from error
        return bool(files)

    @staticmethod
    def _place_here(run_dir: RunDir, *, weights: bool) -> tuple[int, int, float]:
        """A folder that was fetched without its weights is not one to go on from."""
        if weights and not run_dir.latest.is_file():
            return (0, 0, 0.0)
        return _place(run_dir.latest.with_suffix(".json"))

    def holds_run(self) -> bool:
        """Whether a run of this name is there.

        Raises:
            RunError: the place refuses.
        """
        try:
            return self.size("status.json") is not None
        except OSError as error:
            raise RunError(f"distributed.storage_path {self.uri} cannot be read ({line_of(error)})") from error

    def place(self) -> tuple[int, int, float]:
        """Epoch, step and time of its latest checkpoint; zeros without one."""
        try:
            return _numbers(self.read("checkpoints/checkpoint_latest.json"))
        except FileNotFoundError:
            return (0, 0, 0.0)

    def drop_checkpoints(self, keep: str | None = None) -> None:
        """Remove the weights there; their .json stay. `keep`: name of a file that stays too.

        Raises:
            RunError: the place refuses.
        """
        try:
            for name in [name for name in self.names() if name.endswith(".pth")]:
                if Path(name).name != keep:
                    self.remove(name)
        except OSError as error:
            raise RunError(f"distributed.storage_path {self.uri} cannot be cleared ({line_of(error)})") from error


def mirror_of(config: Config) -> Mirror | None:
    """Of the run that a configuration names; None where it is kept in no shared place."""
    storage, name = config.distributed.storage_path, config.experiment_name
    return None if storage is None or name is None else Mirror(storage, name)


class MirroredReporter:
    """A `Reporter` around another that keeps the run's folder; what that has written is copied."""

    def __init__(self, inner: Reporter, run_dir: RunDir, mirror: Mirror | None) -> None:
        self._inner, self._run_dir, self._mirror = inner, run_dir, mirror

    def resume(self) -> State | None:
        return self._inner.resume()

    def heartbeat(self, record: Record) -> Any:
        return self._inner.heartbeat(record)

    def save(self, record: Record, save: Save) -> None:
        self._inner.save(record, save)
        self._push()

    def report(self, record: Record, save: Save) -> None:
        self._inner.report(record, save)
        self._push()

    def finish(self, result: TrainResult | None, error: BaseException | None) -> None:
        self._inner.finish(result, error)
        if error is None:
            self._push()

    def _push(self) -> None:
        if self._mirror is not None:
            self._mirror.push(self._run_dir)


def _order(path: Path) -> tuple[int, str]:
    """Checkpoints, then all else, then what vouches for them; the status last of all."""
    return (3 if path.name == "status.json" else _ORDER.index(path.suffix) if path.suffix in _ORDER else 1, str(path))


def _place(sidecar: Path) -> tuple[int, int, float]:
    try:
        return _numbers(sidecar.read_bytes())
    except OSError:
        return (0, 0, 0.0)


def _numbers(text: bytes) -> tuple[int, int, float]:
    try:
        found = json.loads(text)
        return int(found["epoch"]), int(found["step"]), float(found["time"])
    except (ValueError, KeyError, TypeError):
        return (0, 0, 0.0)
