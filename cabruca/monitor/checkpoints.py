"""A run's checkpoints: what each is, whether its hash holds, how it is used, and which may be removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.commands import command
from cabruca.errors import CheckpointError, RunError
from cabruca.monitor.cache import Kept as Cache
from cabruca.monitor.cache import stamp
from cabruca.monitor.places import inside, run_at
from cabruca.monitor.runs import resume_command
from cabruca.tracking.kept import Kept, bytes_freed, goes_on_from, in_order, look_at, paths_in, remove
from cabruca.tracking.run_dir import RunDir

PROTECTED = ("checkpoint_best.pth", "checkpoint_latest.pth")
"""What the monitor never removes: the result of the run, and what it goes on from."""


class CheckpointBooks:
    """Checkpoints of the runs below one folder; a file is read for its sha256 once, until it changes."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self._known: Cache[Kept] = Cache()

    def of(self, name: str) -> list[Kept]:
        """Every checkpoint of the run, best and latest first; none where it has kept none.

        Raises:
            RunError: there is no such run.
        """
        folder = inside(self.outputs, f"{run_at(self.outputs, name).path.relative_to(self.outputs)}/checkpoints")
        return in_order(self._look(path) for path in sorted(paths_in(folder)) if not path.is_symlink())

    def unread_bytes(self, name: str) -> int:
        """Bytes that `of` would have to read now."""
        folder = run_at(self.outputs, name).checkpoints
        fresh = [path for path in paths_in(folder) if not self._known.has(path, _stamps(path))]
        return sum(found[0] for path in fresh if (found := stamp(path)) is not None)

    def _look(self, path: Path) -> Kept:
        return self._known.get(path, _stamps(path), lambda: look_at(path))

    def freed_by(self, name: str, files: list[str]) -> int:
        """What the disk would get back (a file with a second name that stays frees nothing).

        Raises:
            RunError, CheckpointError: as `delete`.
        """
        return bytes_freed([path for path in self._removable(name, files) if path.is_file()])

    def delete(self, name: str, files: list[str]) -> int:
        """Remove these checkpoints of the run with their sidecars.

        Returns:
            Bytes that the disk got back.

        Raises:
            RunError: no such run, or a name that leads elsewhere.
            CheckpointError: one is protected or not there, or the disk refused; none is removed before all have been
                looked at.
        """
        paths = self._removable(name, files)
        freed = bytes_freed([path for path in paths if path.is_file()])
        for path in paths:
            remove(path)
        return freed

    def _removable(self, name: str, files: list[str]) -> list[Path]:
        run = run_at(self.outputs, name)
        below = run.path.relative_to(self.outputs).as_posix()
        paths = [self._one(below, file) for file in dict.fromkeys(files)]
        needed = goes_on_from(run)
        if needed in paths:
            raise CheckpointError(f"{needed} is the newest intact one, what --resume auto goes on from; keep it")
        return paths

    def _one(self, below: str, file: str) -> Path:
        if file in PROTECTED:
            raise CheckpointError(f"{file} is protected: it is the run's result or what it goes on from; keep it")
        if "/" in file or "\\" in file or not file.endswith(".pth") or file.startswith("."):
            raise RunError(f"'{file}' is no checkpoint of this run; choose one of the list")
        path = inside(self.outputs, f"{below}/checkpoints/{file}")
        if path not in paths_in(path.parent):
            raise CheckpointError(f"{path} is not there any more; reload the page")
        return path


def _stamps(path: Path) -> object:
    return stamp(path), stamp(path.with_suffix(".json")), stamp(path.with_name(f".{path.stem}.json.tmp"))


@dataclass(frozen=True)
class Use:
    """A command that makes something of a checkpoint, and what it does."""

    what: str
    command: str


def uses_of(run: RunDir, path: Path, config: Mapping[str, Any]) -> list[Use]:
    """Evaluate, predict, resume, begin a new run with it: ready to be copied.

    Args:
        config: the run's, for the folders of its data.
    """
    data = config.get("data")
    data = data if isinstance(data, dict) else {}
    images, truth = data.get("test_dir") or "IMAGES", data.get("test_annotations") or "ANNOTATIONS.json"
    out = run.path / "predictions" / f"{path.stem}.gpkg"
    evaluate: list[str | Path] = ["--checkpoint", path, "--images", images, "--annotations", truth]
    predict: list[str | Path] = ["--checkpoint", path, "--image", "ORTHOMOSAIC.tif", "--out", out]
    new_name = f"{run.name}_next"
    anew: list[str | Path] = ["--config", run.config_yaml, "--init-from", path, "--experiment-name", new_name]
    return [
        Use("Measure it on labelled pictures", command("evaluate", *evaluate)),
        Use("Find crowns in an orthomosaic, for the page Map", command("predict", *predict)),
        Use("Go on with the run", resume_command(run)),
        Use("Begin a new run with its weights", command("train", *anew)),
    ]
