"""Where the messages of logger "cabruca" go: all of them to train.log; warnings and notices to the terminal too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from cabruca.tracking.secrets import HidingFormatter, hide

_logger = logging.getLogger("cabruca")


class _Terminal(logging.Handler):
    """Warnings and notices on stderr as it is now: looked up late, because a live bar replaces it.

    Errors are not shown here: they reach people as the exception itself.
    """

    def __init__(self, *, notices: bool) -> None:
        super().__init__()
        self._notices = notices

    def filter(self, record: logging.LogRecord) -> bool:
        notice = self._notices and getattr(record, "notice", False)
        return notice or record.levelno == logging.WARNING

    def emit(self, record: logging.LogRecord) -> None:
        try:
            prefix = "warning: " if record.levelno == logging.WARNING else ""
            print(f"{prefix}{hide(record.getMessage())}", file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class _Kept(logging.Handler):
    """Keeps records in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def terminal(*, notices: bool) -> logging.Handler:
    """A handler that shows what people should see: warnings and, where asked for, notices."""
    return _Terminal(notices=notices)


class EarlyLog:
    """While there is no run folder yet: the terminal hears what it would hear later, and train.log gets it afterwards.

    A context manager; the logger is left as it was found.

    Args:
        quiet: no notices on the terminal (warnings stay).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._kept = _Kept()
        self._handlers: list[logging.Handler] = [self._kept, _Terminal(notices=not quiet)]
        self._level = logging.NOTSET

    @property
    def records(self) -> Sequence[logging.LogRecord]:
        """What was said."""
        return self._kept.records

    def __enter__(self) -> EarlyLog:
        self._level = _attach(self._handlers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _detach(self._handlers, self._level)


def _attach(handlers: Sequence[logging.Handler]) -> int:
    """Let logger "cabruca" speak to `handlers`; gives its level back, for `_detach`."""
    level = _logger.level
    if _logger.getEffectiveLevel() > logging.INFO:
        _logger.setLevel(logging.INFO)
    for handler in handlers:
        _logger.addHandler(handler)
    return level


def _detach(handlers: Sequence[logging.Handler], level: int) -> None:
    for handler in handlers:
        _logger.removeHandler(handler)
        handler.close()
    _logger.setLevel(level)


class RunLog:
    """Attached by `open`, detached by `close`; the logger is left as it was found.

    Args:
        path: train.log, appended to.
        quiet: no notices on the terminal (warnings stay).
        said: records of before there was a folder; they are written to the file.
    """

    def __init__(self, path: Path, *, quiet: bool = False, said: Sequence[logging.LogRecord] = ()) -> None:
        self.path = path
        self._quiet = quiet
        self._said = said
        self._handlers: list[logging.Handler] = []
        self._level = logging.NOTSET

    def open(self) -> None:
        """Attach to logger "cabruca".

        Raises:
            OSError: the file cannot be written.
        """
        file = logging.FileHandler(self.path, encoding="utf-8")
        file.setFormatter(HidingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for record in self._said:
            file.handle(record)
        self._handlers = [file, _Terminal(notices=not self._quiet)]
        self._level = _attach(self._handlers)

    def close(self) -> None:
        """Detach."""
        if self._handlers:
            _detach(self._handlers, self._level)
        self._handlers = []
