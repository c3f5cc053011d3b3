"""LocalReporter: records and checkpoints go into the run's folder; a signal stops training after the step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from cabruca.config.load import redact
from cabruca.config.schema import Config
from cabruca.errors import RunError
from cabruca.tracking.history import History
from cabruca.tracking.log import RunLog
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.signals import SignalWatch
from cabruca.tracking.status import StatusFile
from cabruca.train import checkpoint
from cabruca.train.protocols import Record, Save, State, StopTraining, TrainResult

_log = logging.getLogger("cabruca.tracking")


class LocalReporter:
    """Reporter of a run in this process.

    Args:
        run_dir: a folder that is claimed or reopened already.
        config: resolved; gives the monitored metric and `checkpoint_minutes`.
        resume_state: what `resume()` hands to the loop: a checkpoint's state, the weights and number of a new
            stage alone, or None for a fresh start.
        quiet: warnings alone reach the terminal.
        said: log records of before there was a folder, for train.log.
    """

    def __init__(
        self,
        run_dir: RunDir,
        config: Config,
        resume_state: State | None = None,
        *,
        quiet: bool = False,
        said: Sequence[logging.LogRecord] = (),
    ) -> None:
        self.run_dir = run_dir
        self.config = config
        self._state = resume_state
        self._history = History(run_dir.metrics, run_dir.history)
        self._status = StatusFile(run_dir.status)
        self._log = RunLog(run_dir.log, quiet=quiet, said=said)
        self._signals = SignalWatch(on_second=self._leave_at_once)
        self._started = False
        self._finished = False
        self._saved_at = time.monotonic()

    @property
    def signal_number(self) -> int | None:
        """The signal that asked to stop (15 for SIGTERM, 2 for Ctrl-C), or None."""
        return self._signals.number

    def start(self) -> None:
        """Status `starting`, heartbeat, log, signals, history cut back to the resumed step. Called once by
        whoever prepares the run, else by `resume`.

        Raises:
            RunError: the folder cannot be written.
        """
        if self._started:
            return
        self._started = True
        state = self._state or {}
        epoch, step = int(state.get("epoch", 0)), int(state.get("step", 0))
        self._writing(lambda: self._history.start(epoch=epoch, step=step))
        self._writing(self._log.open)
        self._status.set(epoch=epoch, message="preparing")
        self._status.start()
        self._signals.install()

    def resume(self) -> State | None:
        self.start()
        self._status.set("running", message="training")
        self._saved_at = time.monotonic()
        state, self._state = self._state, None  # not held in memory beside the model for the whole run
        return state

    def heartbeat(self, record: Record) -> Literal["go", "save", "stop"]:
        if record.metrics:
            self._writing(lambda: self._history.append(record))
        if self._signals.number is not None:
            return "stop"
        minutes = self.config.training.checkpoint_minutes
        if minutes and time.monotonic() - self._saved_at >= 60 * minutes:
            return "save"
        return "go"

    def save(self, record: Record, save: Save) -> None:
        self._write_checkpoints(record, save)
        self._stop_if_asked()

    def report(self, record: Record, save: Save) -> None:
        # the record first: a checkpoint must never know of an epoch that history does not
        self._writing(lambda: self._history.append_epoch(record))
        self._write_checkpoints(record, save)
        self._status.set("running", epoch=record.epoch)
        self._stop_if_asked()

    def finish(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._finished:
            return
        self._finished = True
        if result is not None and error is None:
            self._status.set(result.state, epoch=result.epochs, message=result.message)
        elif isinstance(error, KeyboardInterrupt):
            self._status.set("interrupted", message="interrupted before the first checkpoint could be written")
        else:
            self._status.set("failed", message=_one_line(error))
            _log.error("failed: %s", _one_line(error), exc_info=error)
        self._status.close()
        self._signals.restore()
        self._log.close()

    def _write_checkpoints(self, record: Record, save: Save) -> None:
        """`latest` is written; the other names are given to the same content."""

        latest = self.run_dir.latest
        checkpoint.write(
            latest, self._without_secrets(save), metric=record.metrics.get(self.config.training.monitor_metric)
        )
        others: list[Path] = []
        if save.best:
            others.append(self.run_dir.best)
        if save.numbered:
            others.append(self.run_dir.numbered(record.epoch))
        for path in others:
            checkpoint.copy(latest, path)
        self._saved_at = time.monotonic()

    def _without_secrets(self, save: Save) -> State:
        """The loop's state without the secrets of its configuration."""
        state = dict(save.state())
        if isinstance(state.get("config"), dict):
            state["config"] = redact(state["config"])
        return state

    def _stop_if_asked(self) -> None:
        if self._signals.number is not None:
            # before the trackers' end: whoever sent the signal may not wait for them
            self._status.set("interrupted", message=f"{self._signals.name}; {self.run_dir.latest} is written")
            raise StopTraining(f"interrupted by {self._signals.name}; {self.run_dir.latest} is written", "interrupted")

    def _leave_at_once(self) -> None:
        self._status.set("interrupted", message="stopped at once by a second signal; the last checkpoint holds")

    def _writing(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            reason = error.strerror or str(error)
            raise RunError(
                f"run folder {self.run_dir.path} cannot be written ({reason}); free disk space, then --resume auto"
            ) from error


def _one_line(error: BaseException | None) -> str:
    if error is None:
        return "ended without a result"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
