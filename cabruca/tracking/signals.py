"""SIGTERM and Ctrl-C: the first asks training to stop after the step, the second stops the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal came where there is nothing to save; `number` is its."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Inside, SIGTERM and Ctrl-C raise `Stopped` in the main thread; other threads are left alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pid = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == pid:  # not in a forked loader, which its parent ends
            raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class SignalWatch:
    """Remembers the first signal; installed by the main thread only, and taken off again.

    Args:
        on_second: called before the process ends at the second signal; must be quick and must not raise.
        leave: how the process ends, with the exit status; replaced in tests.

    Attributes:
        number: of the first signal, or None.
    """

    def __init__(self, on_second: Callable[[], None], leave: Callable[[int], Any] = os._exit) -> None:
        self.number: int | None = None
        self._on_second = on_second
        self._leave = leave
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()

    def install(self) -> None:
        """Take SIGTERM and SIGINT; nothing outside the main thread, where Python does not allow it."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        self._pid = os.getpid()
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def restore(self) -> None:
        """Give the signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    @property
    def name(self) -> str:
        """`SIGTERM`, or the empty string."""
        return "" if self.number is None else signal.Signals(self.number).name

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked loader: the parent decides, and needs its last batches
            return
        if self.number is None:
            self.number = number
            return
        try:
            self._on_second()
            if sys.stdout.isatty():  # a live bar hides the cursor; give it back
                sys.stdout.write("\x1b[?25h\n")
                sys.stdout.flush()
        finally:
            self._leave(128 + number)
