"""What rank 0 sends to the driver's terminal: progress and log lines that people should see."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import Any

from cabruca.train.protocols import BaseCallback, Record, RunInfo

EVERY_S = 0.2
"""At least this long between two steps that are sent; steps with numbers always are."""


class Relay(BaseCallback):
    """Sends records to the desk, without pictures. The end is told by the driver, which knows whether it is one."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._sent = 0.0

    def on_start(self, info: RunInfo) -> None:
        self._desk.tell.remote("start", info)

    def on_step(self, record: Record) -> None:
        now = time.monotonic()
        if record.metrics or now - self._sent >= EVERY_S:
            self._sent = now
            self._tell("step", record)

    def on_validation(self, record: Record) -> None:
        self._tell("validation", record)

    def on_epoch(self, record: Record) -> None:
        self._tell("epoch", record)

    def _tell(self, kind: str, record: Record) -> None:
        # copied: the trackers' thread reads the record's numbers while system metrics are added
        self._desk.tell.remote(kind, replace(record, metrics=dict(record.metrics), pictures=(), findings=None))


class LogRelay(logging.Handler):
    """Sends warnings and notices of logger "cabruca" to the desk."""

    def __init__(self, desk: Any) -> None:
        super().__init__()
        self._desk = desk

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno == logging.WARNING or bool(getattr(record, "notice", False))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._desk.tell.remote("log", record.levelno, record.getMessage())
        except Exception:
            self.handleError(record)
