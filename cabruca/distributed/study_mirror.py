"""A study whose machines share no disk: `<storage_path>/studies/<name>` holds a copy of its folder.

The driver copies the journal there before a trial that it hands out begins, and at each trial's end; each trial copies
its run folder after each report, and fetches it where it goes on on another machine. A driver that finds less on its
own disk than is there fetches the study and goes on. Optuna's file follows at the end: the journal makes it anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cabruca.config.schema import Config
from cabruca.config.study import Study
from cabruca.distributed.mirror import mirror_of
from cabruca.distributed.shared_folder import SharedFolder, inside, is_temporary, line_of
from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_dir import STUDIES, StudyDir

_log = logging.getLogger("cabruca.distributed")

EVERY_S = 10.0
"""Seconds between copies of the journal while there are only results; what is lost with them the trials tell again."""

AT_ONCE = ("asked", "decided", "ended")
"""Events that are copied before anything follows from them."""


class StudyMirror(SharedFolder):
    """The copy of a study; a watcher of its driver.

    Raises:
        RunError: the place cannot be reached.
    """

    def __init__(self, storage_path: str, study_dir: StudyDir) -> None:
        super().__init__(storage_path, f"{STUDIES}/{study_dir.name}")
        self._dir = study_dir
        self._next_at = 0.0

    def is_ahead(self) -> bool:
        """Whether more is written down there than here.

        Raises:
            RunError: the place refuses.
        """
        here = self._dir.results.stat().st_size if self._dir.results.is_file() else 0
        try:
            return (self.size(self._dir.results.name) or 0) > here
        except OSError as error:
            raise RunError(f"distributed.storage_path {self.uri} cannot be read ({line_of(error)})") from error

    def fetch(self) -> None:
        """Copy the study's own files from there; what makes the folder a study comes last.

        Raises:
            RunError: the place refuses.
        """
        last = self._dir.study_yaml.name
        try:
            for name in sorted((n for n in self.names() if "/" not in n), key=lambda n: n == last):
                self.get(name, self._dir.path / name)
        except OSError as error:
            raise RunError(f"distributed.storage_path {self.uri} cannot be read ({line_of(error)})") from error

    def on_event(self, event: Mapping[str, Any], state: object) -> None:
        """Copy the journal; after a trial's end what is made of it, too."""
        if event["event"] not in AT_ONCE and time.monotonic() < self._next_at:
            return
        names = [self._dir.results]
        if event["event"] == "ended":
            names += [self._dir.leaderboard, self._dir.best_config]
        self._send(names)
        self._next_at = time.monotonic() + EVERY_S

    def on_end(self, result: object) -> None:
        """Nothing; `close` comes after it."""

    def begin(self) -> None:
        """Copy what makes the folder a study.

        Raises:
            RunError: the place refuses.
        """
        try:
            self._send([self._dir.results, self._dir.base_yaml, self._dir.study_yaml])
        except OSError as error:
            raise RunError(f"distributed.storage_path {self.uri} cannot be written ({line_of(error)})") from error

    def close(self) -> None:
        """Copy every file of the study's own; what the place refuses costs a warning: the folder here is whole."""
        try:
            self._send([path for path in sorted(self._dir.path.iterdir()) if not is_temporary(path)])
        except OSError as error:
            _log.warning("%s could not be written (%s); %s is whole", self.uri, line_of(error), self._dir.path)

    def gather(self, config: Config) -> None:
        """Have here what a trial that may have run elsewhere has left, but for its weights."""
        fetch_of(config, weights=False)

    def _send(self, paths: list[Path]) -> None:
        for path in paths:
            if path.is_file():
                self.send(path, path.name)


def study_mirror(study: Study, study_dir: StudyDir) -> StudyMirror | None:
    """Of a study; None where it is kept in no shared place."""
    storage = study.base.distributed.storage_path
    return None if storage is None else StudyMirror(storage, study_dir)


def close_copy(study: Study, study_dir: StudyDir) -> None:
    """Copy a study's own files as they are now; what the place refuses costs a warning."""
    try:
        mirror = study_mirror(study, study_dir)
    except RunError as error:
        _log.warning("%s", error)
        return
    if mirror is not None:
        mirror.close()


def placed(config: Config, study_dir: StudyDir, below: Path) -> Config:
    """A trial's configuration with the place of its own copy: in that of the study, as its folder is in the study's."""
    storage = config.distributed.storage_path
    if storage is None:
        return config
    place = inside(storage, f"{STUDIES}/{study_dir.name}/{below.name}")
    return config.model_copy(update={"distributed": config.distributed.model_copy(update={"storage_path": place})})


def run_dir_of(config: Config) -> RunDir:
    """The folder of the run that a configuration names."""
    return RunDir(Path(config.output_dir) / str(config.experiment_name))


def fetch_of(config: Config, *, weights: bool = True) -> None:
    """Have a run here that is further on in its shared place.

    Raises:
        RunError: the place refuses.
    """
    mirror = mirror_of(config)
    if mirror is not None:
        mirror.fetch(run_dir_of(config), weights=weights)


def drop_there(config: Config, keep: str | None = None) -> None:
    """Remove a run's weights from its shared copy; a place that refuses costs a warning."""
    try:
        mirror = mirror_of(config)
        if mirror is not None:
            mirror.drop_checkpoints(keep)
    except RunError as error:
        _log.warning("%s", error)


def look_into_storage(study: Study, study_dir: StudyDir, *, resume: bool) -> None:
    """Fetch a study that is to go on and is further on there; refuse a name that is taken there.

    Raises:
        RunError: the place refuses; a study of that name is there.
    """
    mirror = study_mirror(study, study_dir)
    if mirror is None or not mirror.is_ahead():
        return
    if not resume:
        raise RunError(f"{mirror.uri} already holds a study; go on with it (--resume), or give this one another name")
    mirror.fetch()
