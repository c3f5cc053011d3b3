"""A tracker that is dead, slow or wrong costs one warning, never the training."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from cabruca.train.protocols import BaseCallback, Callback, Record, RunInfo, TrainResult

_log = logging.getLogger("cabruca.tracking")

Call = Callable[[Callback], None]


class Guarded(BaseCallback):
    """Runs a callback's hooks in a background thread, in order, behind a queue of bounded length.

    The first exception, the first full queue or a hook that does not end in time is told once; after an
    exception the callback is not called again, after a full queue the records that do not fit are dropped.

    Args:
        name: for the warning.
        make: builds the callback in the calling thread (imports happen here, not beside a fork of loaders);
            it does no input or output that can hang.
        capacity: hooks that may wait.
        patience_s: how long `on_end` waits for the waiting hooks.
    """

    def __init__(self, name: str, make: Callable[[], Callback], *, capacity: int = 256, patience_s: float = 60.0):
        self.name = name
        self._patience_s = patience_s
        self._queue: queue.Queue[Call | None] = queue.Queue(capacity)
        self._lock = threading.Lock()
        self._warned = False
        self._dead = threading.Event()
        self._callback: Callback | None = None
        try:
            self._callback = make()
        except Exception as error:
            self._fail(error)
        self._thread = threading.Thread(target=self._work, name=f"cabruca-{name}", daemon=True)
        self._thread.start()

    def on_start(self, info: RunInfo) -> None:
        self._put(lambda callback: callback.on_start(info))

    def on_step(self, record: Record) -> None:
        self._put(lambda callback: callback.on_step(record))

    def on_validation(self, record: Record) -> None:
        self._put(lambda callback: callback.on_validation(record))

    def on_epoch(self, record: Record) -> None:
        self._put(lambda callback: callback.on_epoch(record))

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if self._dead.is_set():
            return
        self._put(lambda callback: callback.on_end(result, error), wait_s=self._patience_s)
        self._put(None, wait_s=self._patience_s)
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            self._dead.set()
            self._warn(f"did not end within {self._patience_s:g} s; its last records may be missing")

    def _put(self, call: Call | None, *, wait_s: float = 0.0) -> None:
        if self._dead.is_set():
            return
        try:
            self._queue.put(call, block=wait_s > 0, timeout=wait_s or None)
        except queue.Full:
            self._warn("is slower than training; records that do not fit its queue are dropped")

    def _work(self) -> None:
        while not self._dead.is_set():
            call = self._queue.get()
            if call is None or self._callback is None:
                return
            try:
                call(self._callback)
            except Exception as error:
                self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._dead.set()
        lines = str(error).strip().splitlines()
        text = lines[0][:200] if lines else type(error).__name__
        self._warn(f"is switched off for this run ({text}); training goes on, its records are in metrics.jsonl")

    def _warn(self, text: str) -> None:
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            _log.warning("tracker %s %s", self.name, text)
