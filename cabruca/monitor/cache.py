"""What was read from a file, kept until the file is another one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

Stamp = tuple[int, int, int] | None
"""Size, time of the last change (ns) and inode of a file; None where there is none."""


def stamp(path: Path) -> Stamp:
    """What tells one state of a file from another without reading it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


class Kept(Generic[T]):
    """Values by key, each with the stamp under which it was made; the least recently used go first.

    Several sessions of the browser share one: it is locked, but never while a value is being made.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[object, T]] = OrderedDict()

    def get(self, key: Hashable, stamp: object, make: Callable[[], T]) -> T:
        """The value under `key`, made again where the stamp is another."""
        with self._lock:
            known = self._values.get(key)
            if known is not None and known[0] == stamp:
                self._values.move_to_end(key)
                return known[1]
        value = make()
        with self._lock:
            self._values[key] = stamp, value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def has(self, key: Hashable, stamp: object) -> bool:
        """Whether `get` would have to make nothing."""
        with self._lock:
            return key in self._values and self._values[key][0] == stamp

    def of_file(self, path: Path, read: Callable[[Path], T]) -> T:
        """What `read` makes of the file, again only where it has changed."""
        return self.get(path, stamp(path), lambda: read(path))
