"""The folder that a run leaves behind: the contract between training, trackers and monitor.

::

    <output_dir>/<experiment_name>/
      config.yaml  environment.json  status.json  train.log  MODEL_CARD.md
      metrics.jsonl  training_history.json
      checkpoints/  tensorboard/  plots/  predictions/

Paths only, and who may write there; no file format is decided here.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cabruca.errors import RunError
from cabruca.tracking.status import is_alive, read_status

TRACES = ("status.json", "config.yaml", "metrics.jsonl", "training_history.json", "checkpoints")
"""What shows that a folder holds a run."""


@dataclass(frozen=True)
class RunDir:
    """Paths of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The experiment name: that of the folder."""
        return self.path.resolve().name

    @property
    def config_yaml(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def history(self) -> Path:
        return self.path / "training_history.json"

    @property
    def model_card(self) -> Path:
        return self.path / "MODEL_CARD.md"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def latest(self) -> Path:
        return self.checkpoints / "checkpoint_latest.pth"

    @property
    def best(self) -> Path:
        return self.checkpoints / "checkpoint_best.pth"

    @property
    def was_tested(self) -> bool:
        """Whether the test at the end of the run has left its numbers."""
        return (self.test / "metrics.json").is_file()

    def numbered(self, epoch: int) -> Path:
        """The checkpoint kept after `epoch` completed epochs."""
        return self.checkpoints / f"checkpoint_epoch_{epoch}.pth"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def test(self) -> Path:
        return self.path / "test"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    @property
    def holds_run(self) -> bool:
        """Whether a run has left its traces here."""
        return any((self.path / trace).exists() for trace in TRACES)

    @property
    def was_stillborn(self) -> bool:
        """Whether the run here failed before it left a checkpoint or a row of metrics: nothing is lost with it."""
        status = read_status(self.status) or {}
        return status.get("state") in ("failed", "interrupted") and not self._kept_anything()

    def _kept_anything(self) -> bool:
        rows = self.metrics.is_file() and self.metrics.stat().st_size > 0
        return rows or any(self.checkpoints.glob("*.pth"))

    def refuse_taken(self) -> None:
        """Look whether a new run could be made here.

        Raises:
            RunError: the folder holds a run, and one that has left something.
        """
        if self.holds_run and not self.was_stillborn:
            raise self._taken()

    @classmethod
    def create(cls, output_dir: str | Path, name: str | None = None) -> RunDir:
        """Claim `<output_dir>/<name>` for a new run; without a name, `cabruca_<YYYYmmdd_HHMMSS>`.

        The claim is the exclusive creation of status.json: of two processes that ask at once, one gets it. A run that
        failed before it left anything (`was_stillborn`) does not hold its folder.

        Raises:
            RunError: the folder already holds a run, or cannot be made.
        """
        if name is not None:
            return cls(Path(output_dir) / name)._claim()
        second = time.time()
        while True:  # a second run in the same second takes the next one
            run = cls(Path(output_dir) / time.strftime("cabruca_%Y%m%d_%H%M%S", time.localtime(second)))
            if not run.holds_run:
                try:
                    return run._claim()
                except RunError:
                    if not run.holds_run:
                        raise
            second += 1

    @classmethod
    def of_checkpoint(cls, checkpoint: str | Path) -> RunDir | None:
        """The run that a checkpoint belongs to: the folder around its `checkpoints/`; None where it lies elsewhere."""
        folder = Path(checkpoint).parent
        if not folder.parent.name:  # given relative to the run's folder or from inside it
            folder = folder.absolute()
        return cls(folder.parent) if folder.name == "checkpoints" else None

    def reopen(self) -> RunDir:
        """Go on in this folder.

        Raises:
            RunError: another process is at work here, or the folder may not be written.
        """
        status = read_status(self.status)
        if is_alive(status):
            assert status is not None
            raise RunError(
                f"run {self.path} is still going on (process {status['pid']} on {status['host']}); "
                "wait for it, stop it, or use another --experiment-name"
            )
        self._make_folders()
        return self

    def _claim(self) -> RunDir:
        self.refuse_taken()
        if self.was_stillborn:
            self._put_aside()
        self._make_folders(only_parent=True)
        try:
            os.close(os.open(self.status, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError as error:
            raise self._taken() from error
        except OSError as error:
            raise RunError(f"{self.path} cannot be written ({error.strerror}); choose another --output-dir") from error
        self._make_folders()
        return self

    def _put_aside(self) -> None:
        """Take the failed run's status away; where another process was quicker, it is its status: give it back."""
        aside = self.status.with_name(f".status.json.{os.getpid()}.failed")
        try:
            self.status.rename(aside)
        except OSError as error:
            raise self._taken() from error
        if (read_status(aside) or {}).get("state") not in ("failed", "interrupted"):
            aside.rename(self.status)
            raise self._taken()
        aside.unlink()

    def _taken(self) -> RunError:
        return RunError(
            f"{self.path} already holds a run; use another --experiment-name, or go on with it: "
            f"--experiment-name {self.name} --resume auto"
        )

    def _make_folders(self, *, only_parent: bool = False) -> None:
        folders = [self.path] if only_parent else [self.path, self.checkpoints, self.plots, self.predictions]
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(f"run folder {self.path} cannot be made ({reason}); choose another --output-dir") from error
