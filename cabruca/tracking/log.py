"""Where the messages of logger "cabruca" go: all of them to train.log; warnings and notices to the terminal too."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

_logger = logging.getLogger("cabruca")

NOTICE = {"notice": True}
"""`log.info(text, extra=NOTICE)`: an information that people should see on the terminal as well."""


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
            print(f"{prefix}{record.getMessage()}", file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class RunLog:
    """Attached by `open`, detached by `close`; the logger is left as it was found.

    Args:
        path: train.log, appended to.
        quiet: no notices on the terminal (warnings stay).
    """

    def __init__(self, path: Path, *, quiet: bool = False) -> None:
        self.path = path
        self._quiet = quiet
        self._handlers: list[logging.Handler] = []
        self._level = logging.NOTSET

    def open(self) -> None:
        """Attach to logger "cabruca".

        Raises:
            OSError: the file cannot be written.
        """
        file = logging.FileHandler(self.path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._handlers = [file, _Terminal(notices=not self._quiet)]
        self._level = _logger.level
        if _logger.getEffectiveLevel() > logging.INFO:
            _logger.setLevel(logging.INFO)
        for handler in self._handlers:
            _logger.addHandler(handler)

    def close(self) -> None:
        """Detach."""
        for handler in self._handlers:
            _logger.removeHandler(handler)
            handler.close()
        if self._handlers:
            _logger.setLevel(self._level)
        self._handlers = []
