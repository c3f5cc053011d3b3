"""A folder in a place that every machine reaches: `distributed.storage_path`, or one below it.

Each file is whole or not there: it is written under another name and moved.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cabruca.errors import RunError

CHUNK = 16 << 20
"""Bytes read at a time: of a bucket, each is a request."""


class SharedFolder:
    """The folder `<storage_path>/<name>`.

    Args:
        storage_path: a folder, `file://`, `s3://`, `gs://`, or what else pyarrow's file systems know.
        filesystem: of pyarrow; None: as the path says.

    Raises:
        RunError: the place cannot be reached.
    """

    def __init__(self, storage_path: str, name: str, filesystem: Any = None) -> None:
        self.uri = inside(storage_path, name)
        self._fs, self._root = (filesystem, self.uri) if filesystem is not None else opened(self.uri)
        self._sent: dict[str, tuple[int, int, int]] = {}

    def size(self, name: str) -> int | None:
        """Bytes of a file there; None: it is not there.

        Raises:
            OSError: the place refuses.
        """
        from pyarrow.fs import FileType

        info = self._fs.get_file_info(f"{self._root}/{name}")
        return int(info.size) if info.type == FileType.File else None

    def read(self, name: str) -> bytes:
        """All of a small file.

        Raises:
            OSError: it is not there, or the place refuses.
        """
        with self._fs.open_input_stream(f"{self._root}/{name}") as file:
            return bytes(file.read())

    def names(self) -> Iterator[str]:
        """Every whole file there, by its path in the folder."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._root, allow_not_found=True, recursive=True)
        for info in self._fs.get_file_info(selector):
            name = info.path.removeprefix(self._root.rstrip("/")).lstrip("/")
            if info.type == FileType.File and not is_temporary(Path(name)):
                yield name

    def send(self, path: Path, name: str) -> None:
        """Copy a file there, unless it is as it was when it was last sent; a second name of one file is copied over
        there (the best checkpoint is the latest, at the time)."""
        stat = path.stat()
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._sent.get(name) == mark:
            return
        target = f"{self._root}/{name}"
        parent, _, last = target.rpartition("/")
        self._fs.create_dir(parent, recursive=True)
        twin = next((other for other, known in self._sent.items() if known == mark), None)
        if twin is not None and stat.st_nlink > 1:
            self._fs.copy_file(f"{self._root}/{twin}", f"{parent}/.{last}.tmp")
        else:
            with path.open("rb") as source, self._fs.open_output_stream(f"{parent}/.{last}.tmp") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
        self._fs.move(f"{parent}/.{last}.tmp", target)
        self._sent[name] = mark

    def get(self, name: str, path: Path) -> None:
        """Copy a file from there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with self._fs.open_input_stream(f"{self._root}/{name}") as source, temporary.open("wb") as sink:
            shutil.copyfileobj(source, sink, CHUNK)
        temporary.replace(path)

    def remove(self, name: str) -> None:
        """Remove a file there; one that is gone is no fault."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.delete_file(f"{self._root}/{name}")
        self._sent.pop(name, None)


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
        raise RunError(f"distributed.storage_path {uri} cannot be reached ({line_of(error)})") from error
    return found, root


def is_temporary(path: Path) -> bool:
    """Half a file, or one of ours that is nobody else's."""
    return path.name.startswith(".")


def line_of(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
