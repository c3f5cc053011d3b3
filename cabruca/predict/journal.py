"""The working folder of a prediction: what is done so far, so that a kill at any moment costs seconds of work.

`crowns.jsonl` and `grid.jsonl` only grow; `state.json`, replaced as a whole, says how many bytes of them count, and
holds everything that the next window needs. What was written after the last state is cut off and made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cabruca.errors import RunError
from cabruca.predict.rows import Row
from cabruca.tracking.files import write_atomic

LOGS = ("crowns", "grid")

State = dict[str, Any]
"""Plain values, as JSON holds them."""


def folder_of(out: Path) -> Path:
    """`farm.gpkg.partial` beside `farm.gpkg`."""
    return out.with_name(f"{out.name}.partial")


def state_of(out: Path) -> Path:
    """The file that is there where a map was begun and is not finished."""
    return folder_of(out) / "state.json"


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs, for people; empty where nothing does."""
    other = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
    return ", ".join(f"{k}: {then.get(k)} then, {now.get(k)} now" for k in other)


def remove_left(out: Path) -> None:
    """Remove what a kill left of the working folder of a finished map."""
    shutil.rmtree(_done(folder_of(out)), ignore_errors=True)


def _done(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.done")


class Journal:
    """Opened by one process at a time.

    Args:
        out: the map's name. job: everything that the result depends on, name -> text.

    Raises:
        RunError: another process is at work on it; it was begun with other settings; it is damaged.
    """

    def __init__(self, out: Path, job: Mapping[str, str]) -> None:
        self.folder = folder_of(out)
        self._job = dict(job)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._claim = _claimed(self.folder)
        remove_left(out)
        self.state = self._read_state()
        if not self.state:  # what a kill before the first save left, the planes of other windows too
            for path in self.folder.iterdir():
                if path.name != "lock" and not path.is_dir():
                    path.unlink()
        for name in LOGS:
            path = self._path(name)
            path.touch()
            counts, there = self.state.get("bytes", {}).get(name, 0), path.stat().st_size
            if there < counts:  # truncate would fill it up with zeros
                raise self._damaged(f"{path.name} has {there} of {counts} bytes")
            os.truncate(path, counts)
        self._files = {name: self._path(name).open("ab") for name in LOGS}

    @property
    def begun(self) -> bool:
        """Whether there is a state to go on from."""
        return bool(self.state)

    def append(self, name: str, rows: Iterable[Row]) -> None:
        """Rows of `crowns` or `grid`; they count from the next `save` on."""
        for row in rows:
            self._files[name].write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")

    def save(self, state: State) -> None:
        """Make everything so far count."""
        sizes = {}
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            sizes[name] = file.tell()
        self.state = {**state, "job": self._job, "bytes": sizes}
        write_atomic(self.folder / "state.json", json.dumps(self.state, separators=(",", ":")))

    def rows(self, name: str) -> Iterator[Row]:
        """All rows, as a stream."""
        self._files[name].flush()
        with self._path(name).open("rb") as file:
            for line in file:
                yield json.loads(line)

    def close(self) -> None:
        """Let go of the folder."""
        for file in self._files.values():
            file.close()
        self._claim.close()

    def remove(self) -> None:
        """The map is finished: the folder is not needed any more. It loses its name first: half of it is no state."""
        self.close()
        done = _done(self.folder)
        shutil.rmtree(done, ignore_errors=True)
        with contextlib.suppress(OSError):  # the map is there, whatever becomes of the folder
            self.folder.rename(done)
        shutil.rmtree(done, ignore_errors=True)

    def _damaged(self, what: str) -> RunError:
        return RunError(f"'{self.folder}' is damaged ({what}); remove it and begin anew without --resume")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def _read_state(self) -> State:
        try:
            state: State = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise self._damaged("state.json is no JSON") from error
        if not isinstance(state, dict):
            raise self._damaged("state.json holds no state")
        other = changed(state.get("job", {}), self._job)
        if other:
            raise RunError(
                f"'{self.folder}' was begun with other settings ({other}); go on with those, or remove the folder"
            )
        return state


def _claimed(folder: Path) -> Any:
    """A lock that ends with its process, however that ends."""
    file = (folder / "lock").open("a")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows: no lock
        pass
    except OSError as error:
        file.close()
        raise RunError(f"another process is at work on '{folder}'; wait for it, or end it") from error
    return file
