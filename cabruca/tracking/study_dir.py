"""The folder that a study leaves behind: the contract between the driver, the tables, the trackers and the monitor.

::

    <output_dir>/studies/<name>/
      study.yaml  base_config.yaml  results.jsonl  optuna.db
      status.json  study.log  estimate.json
      leaderboard.csv  best_config.yaml  report.html
      trials/trial_0007/            a run folder each
      repeats/trial_0007_seed_1/    a run folder each

Paths, who may write there, and how a study is read back; results.jsonl is described in `study_events.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cabruca.commands import command
from cabruca.config.load import redact, to_yaml
from cabruca.config.study import Study, load_study
from cabruca.errors import RunError, did_you_mean
from cabruca.tracking.files import write_atomic
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_events import events

STUDIES = "studies"
"""Folder below a base configuration's `output_dir` that holds its studies."""

_TRIAL = re.compile(r"trial_(\d{4,})")


@dataclass(frozen=True)
class StudyDir:
    """Paths of one study."""

    path: Path

    @property
    def name(self) -> str:
        """The study's name: that of the folder."""
        return self.path.resolve().name

    @property
    def study_yaml(self) -> Path:
        """The resolved `StudyConfig`, secrets redacted."""
        return self.path / "study.yaml"

    @property
    def base_yaml(self) -> Path:
        """The resolved base configuration (its file, the study's `set`, the flags), secrets redacted."""
        return self.path / "base_config.yaml"

    @property
    def optuna_db(self) -> Path:
        return self.path / "optuna.db"

    @property
    def results(self) -> Path:
        return self.path / "results.jsonl"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        return self.path / "study.log"

    @property
    def estimate(self) -> Path:
        return self.path / "estimate.json"

    @property
    def leaderboard(self) -> Path:
        return self.path / "leaderboard.csv"

    @property
    def best_config(self) -> Path:
        return self.path / "best_config.yaml"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def repeats(self) -> Path:
        return self.path / "repeats"

    @property
    def repeats_json(self) -> Path:
        """What the repeats came to: mean and deviation a trial."""
        return self.path / "repeats.json"

    @property
    def scratch(self) -> Path:
        """Ray's own files; nothing is resumed from them and they are removed at the end."""
        return self.path / ".ray"

    @property
    def lock_file(self) -> Path:
        return self.path / ".lock"

    def trial_dir(self, number: int) -> RunDir:
        """The run folder of a trial."""
        return RunDir(self.trials / trial_name(number))

    def repeat_dir(self, number: int, seed: int) -> RunDir:
        """The run folder of a trial's repetition with another `training.seed`."""
        return RunDir(self.repeats / f"{trial_name(number)}_seed_{seed}")

    @property
    def holds_study(self) -> bool:
        """Whether a study was begun here (a study.yaml alone may be the file that a person wrote)."""
        return self.study_yaml.is_file() and self.base_yaml.is_file()

    @property
    def was_asked(self) -> bool:
        """Whether any trial was ever asked for: before that nothing is lost by beginning anew."""
        return any(event["event"] == "asked" for event in events(self.results))

    def forget_beginning(self) -> None:
        """Remove what a study that came to no trial had noted: other metrics would not go with it."""
        for path in (self.estimate, *self.path.glob(f"{self.optuna_db.name}*")):
            path.unlink(missing_ok=True)

    @classmethod
    def of(cls, study: Study) -> StudyDir:
        """Where a study lies, or would lie: `<output_dir of its base>/studies/<name>`."""
        return cls(Path(study.base.output_dir) / STUDIES / study.config.name)

    @classmethod
    def create(cls, study: Study) -> StudyDir:
        """Make the folder of a new study and write study.yaml and base_config.yaml.

        Raises:
            RunError: there is a study of that name already, or the folder cannot be written.
        """
        folder = cls.of(study)
        if folder.holds_study:
            raise RunError(
                f"study {folder.path} is there already; go on with it ({command('tune', 'resume', folder.path)}), "
                "or give this one another name"
            )
        folder.write(study)
        return folder

    def write(self, study: Study) -> None:
        """Write study.yaml and base_config.yaml, each whole or not at all (again, when a study is extended).

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            self.trials.mkdir(parents=True, exist_ok=True)
            write_atomic(self.base_yaml, to_yaml(redact(study.base.to_dict())))
            write_atomic(self.study_yaml, to_yaml(redact(study.config.model_dump(mode="json"))))  # makes it a study
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(
                f"study folder {self.path} cannot be written ({reason}); choose another output_dir"
            ) from error

    @classmethod
    def open(cls, path: str | Path) -> StudyDir:
        """The study in that folder.

        Raises:
            RunError: there is none.
        """
        folder = cls(Path(path))
        if not folder.holds_study:
            raise RunError(f"{folder.path} holds no study (study.yaml); give the name or folder of one")
        return folder

    def load(self, overrides: dict[str, object] | None = None) -> Study:
        """The study as it was begun or last extended, under overrides as `load_study` takes them.

        Raises:
            ConfigError: its files cannot be read, or an override is not acceptable.
        """
        return load_study(self.study_yaml, overrides or {}, base=self.base_yaml)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study; the system lets go of it when this process ends, however it ends.

        Raises:
            RunError: another process runs the study, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = self.lock_file.open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(f"study {self.path} cannot be locked ({error.strerror}); mend its permissions") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise self._busy() from None
            except OSError as error:
                raise RunError(
                    f"study {self.path} cannot be locked ({error.strerror}): this file system has no locks; put "
                    "output_dir elsewhere"
                ) from error
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
            file.flush()
            yield

    def _busy(self) -> RunError:
        try:
            holder = json.loads(self.lock_file.read_text(encoding="utf-8"))
            who = f"process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        return RunError(
            f"study {self.name} is being run by {who}; wait for it, stop it, or look on: "
            f"{command('tune', 'status', self.path)}"
        )


def trial_name(number: int) -> str:
    """`trial_0007`: a trial's run folder and experiment name."""
    return f"trial_{number:04d}"


def trial_number(name: str) -> int | None:
    """7 of `trial_0007`; None of any other name."""
    found = _TRIAL.fullmatch(name)
    return int(found[1]) if found else None


def find_study(name: str | Path, output_dir: str | Path = "outputs") -> StudyDir:
    """The study of that name below `<output_dir>/studies`, or in the folder `name`.

    Raises:
        RunError: there is none; names the one that is spelled alike.
    """
    for folder in (Path(output_dir) / STUDIES / name, Path(name)):
        if StudyDir(folder).holds_study:
            return StudyDir(folder)
    known = names_of_studies(output_dir)
    listed = f"; there are {', '.join(known[:8])}" if known else "; give the study's folder, or --output-dir"
    raise RunError(
        f"'{name}' is no study folder and no study in {Path(output_dir) / STUDIES}"
        f"{did_you_mean(str(name), known) or listed}"
    )


def names_of_studies(output_dir: str | Path = "outputs") -> list[str]:
    """Names of the studies below `<output_dir>/studies`, in order."""
    folder = Path(output_dir) / STUDIES
    if not folder.is_dir():
        return []
    return sorted(child.name for child in folder.iterdir() if StudyDir(child).holds_study)
