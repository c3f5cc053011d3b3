"""Which runs, studies and predictions lie below the outputs folder, and that nothing else is reached.

A name is the path below that folder with `/` in it. What a browser sends as a name is believed nowhere: `inside`
refuses what leaves the folder, by `..`, as an absolute path, or through a symbolic link.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath

from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_dir import STUDIES, StudyDir

DEEPEST = 3
"""Folders below the outputs folder in which runs are looked for (`outputs/demo/run`)."""

MOST = 5_000
"""Folders that are looked into: a monitor pointed at `/` must end too."""

_INSIDE_A_RUN = ("checkpoints", "tensorboard", "plots", "predictions", "test", "profile")


def inside(outputs: Path, name: str) -> Path:
    """The path `name` below `outputs`.

    Raises:
        RunError: the name leaves the folder, or a part of it is a symbolic link.
    """
    windows = PureWindowsPath(name)
    parts = windows.parts
    if not name or "\0" in name or windows.drive or windows.root or ".." in parts or Path(name).is_absolute():
        raise RunError(f"'{name}' leaves the outputs folder {outputs}; choose a run of the list")
    path = outputs
    for part in Path(name).parts:
        path = path / part
        if path.is_symlink():
            raise RunError(f"{path} is a symbolic link, and links are not followed; give its target as --outputs")
    return path


def run_at(outputs: Path, name: str) -> RunDir:
    """The run of that name.

    Raises:
        RunError: there is none, or the name leaves the folder.
    """
    run = RunDir(inside(outputs, name))
    if not run.holds_run:
        raise RunError(f"there is no run '{name}' in {outputs}; it may have been removed: choose another")
    return run


def study_at(outputs: Path, name: str) -> StudyDir:
    """The study of that name.

    Raises:
        RunError: there is none, or the name leaves the folder.
    """
    study = StudyDir(inside(outputs, name))
    if not study.holds_study:
        raise RunError(f"there is no study '{name}' in {outputs}; it may have been removed: choose another")
    return study


def names_of(outputs: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of runs, of trials and repeats of studies (runs too), and of studies, each in order.

    The outputs folder itself is never one of them; links are not followed.
    """
    runs: list[str] = []
    trials: list[str] = []
    studies: list[str] = []
    for folder in _folders(outputs):
        name = folder.relative_to(outputs).as_posix()
        if StudyDir(folder).holds_study:
            studies.append(name)
        elif RunDir(folder).holds_run:
            (trials if _of_a_study(folder) else runs).append(name)
    return sorted(runs), sorted(trials), sorted(studies)


def _folders(outputs: Path) -> Iterator[Path]:
    """Folders that may hold a run or a study, those inside a run left out."""
    waiting, looked_at = [(outputs, 0)], 0
    while waiting and looked_at < MOST:
        folder, depth = waiting.pop(0)
        looked_at += 1
        if depth:
            yield folder
        holds_run = depth > 0 and RunDir(folder).holds_run and not StudyDir(folder).holds_study
        if not holds_run and depth < DEEPEST + (STUDIES in folder.parts):
            waiting += [(child, depth + 1) for child in children(folder) if child.name not in _INSIDE_A_RUN]


def children(folder: Path) -> list[Path]:
    """Folders in a folder that are no links and not hidden, in order; none where it cannot be read."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in found if not path.name.startswith(".") and path.is_dir() and not path.is_symlink()]


def _of_a_study(folder: Path) -> bool:
    return folder.parent.name in ("trials", "repeats") and StudyDir(folder.parent.parent).holds_study
