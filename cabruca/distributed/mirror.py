"""A copy of a run's folder in a place that every machine reaches: `distributed.storage_path`.

Rank 0 copies what has changed after each report; whoever goes on with the run and has an older folder, or none, fetches
it first. Each file is whole or not there: it is written under another name and moved, and a checkpoint's `.json` comes
after its `.pth`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir

_ORDER = (".pth", "", ".json")
"""Files of a kind are copied before those of the next: who vouches comes last."""


class Mirror:
    """The folder `<storage_path>/<run>`.

    Args:
        storage_path: a folder, `file://`, `s3://`, `gs://`, or what else pyarrow's file systems know.
        filesystem: of pyarrow; None: as the path says.

    Raises:
        RunError: the place cannot be reached.
    """

    def __init__(self, storage_path: str, run: str, filesystem: Any = None) -> None:
        self.uri = inside(storage_path, run)
        self._fs, self._root = (filesystem, self.uri) if filesystem is not None else opened(self.uri)
        self._sent: dict[str, tuple[int, int]] = {}

    def push(self, run_dir: RunDir, only: Sequence[Path] = ()) -> None:
        """Copy every file that is new or has changed since the last call.

        Args:
            only: files and folders of the run; empty: all of it.

        Raises:
            RunError: the place refuses.
        """
        places = [found for place in only or [run_dir.path] for found in (place, *place.rglob("*"))]
        files = [path for path in places if path.is_file() and not _temporary(path)]
        try:
            for path in sorted(files, key=_order):
                self._send(path, path.relative_to(run_dir.path).as_posix())
        except OSError as error:
            raise RunError(
                f"distributed.storage_path {self.uri} cannot be written ({_line(error)}); the run's own folder is whole"
            ) from error

    def fetch(self, run_dir: RunDir) -> bool:
        """Copy the run from there, where it is further on than `run_dir` or `run_dir` is not there.

        Returns:
            Whether anything was copied.

        Raises:
            RunError: the place refuses.
        """
        try:
            if self.place() <= _place(run_dir.latest.with_suffix(".json")) and run_dir.status.is_file():
                return False
            files = sorted(self._files(), key=lambda name: _order(Path(name)))
            for name in files:
                self._get(name, run_dir.path / name)
        except OSError as error:
            raise RunError(f"distributed.storage_path {self.uri} cannot be read ({_line(error)})") from error
        return bool(files)

    def holds_run(self) -> bool:
        """Whether a run of this name is there."""
        from pyarrow.fs import FileType

        try:
            return bool(self._fs.get_file_info(f"{self._root}/status.json").type == FileType.File)
        except OSError as error:
            raise RunError(f"distributed.storage_path {self.uri} cannot be read ({_line(error)})") from error

    def place(self) -> tuple[int, int, float]:
        """Epoch, step and time of its latest checkpoint; zeros without one."""
        try:
            with self._fs.open_input_stream(f"{self._root}/checkpoints/checkpoint_latest.json") as file:
                return _numbers(file.read())
        except FileNotFoundError:
            return (0, 0, 0.0)

    def _files(self) -> Iterator[str]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._root, allow_not_found=True, recursive=True)
        for info in self._fs.get_file_info(selector):
            name = info.path.removeprefix(self._root.rstrip("/")).lstrip("/")
            if info.type == FileType.File and not _temporary(Path(name)):
                yield name

    def _send(self, path: Path, name: str) -> None:
        stat = path.stat()
        mark = (stat.st_mtime_ns, stat.st_size)
        if self._sent.get(name) == mark:
            return
        target = f"{self._root}/{name}"
        parent, _, last = target.rpartition("/")
        self._fs.create_dir(parent, recursive=True)
        with path.open("rb") as source, self._fs.open_output_stream(f"{parent}/.{last}.tmp") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        self._fs.move(f"{parent}/.{last}.tmp", target)
        self._sent[name] = mark

    def _get(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with self._fs.open_input_stream(f"{self._root}/{name}") as source, temporary.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        temporary.replace(path)


def inside(storage_path: str, name: str) -> str:
    """The path or URI of `name` in there; what stands after a `?` says how the place is reached and stays last."""
    place, mark, options = storage_path.partition("?") if "://" in storage_path else (storage_path, "", "")
    return f"{place.rstrip('/')}/{name}{mark}{options}"


def opened(uri: str) -> tuple[Any, str]:
    """pyarrow's file system of a path or URI, and the path in it.

    Raises:
        RunError: the place cannot be reached.
    """
    from pyarrow.fs import FileSystem

    try:
        found, root = FileSystem.from_uri(uri if "://" in uri else Path(uri).absolute().as_uri())
    except (OSError, ValueError) as error:
        raise RunError(f"distributed.storage_path {uri} cannot be reached ({_line(error)})") from error
    return found, root


def _temporary(path: Path) -> bool:
    return path.name.startswith(".")


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


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
