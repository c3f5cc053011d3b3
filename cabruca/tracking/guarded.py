"""A tracker that is dead, slow or wrong costs one warning, never the training."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from cabruca.train.protocols import BaseCallback, Callback, Record, RunInfo, TrainResult

_log = logging.getLogger("cabruca.tracking")

Call = Callable[[Callback], None]


def interrupted(result: TrainResult | None, error: BaseException | None) -> bool:
    """Whether somebody outside stopped the run, and waits for its end."""
    return isinstance(error, KeyboardInterrupt) or (result is not None and result.state == "interrupted")


class Guarded(BaseCallback):
    """Runs a callback's hooks in a background thread, in order, behind a queue of bounded length.

    The first exception, the first full queue or a hook that does not end in time is told once; after an
    exception the callback is not called again, after a full queue the records that do not fit are dropped.

    Args:
        name: for the warning.
        make: builds the callback in the calling thread (imports happen here, not beside a fork of loaders);
            it does no input or output that can hang.
        capacity: hooks that may wait.
        patience_s: how long `on_end` waits in all, for the waiting hooks and for its own.
        hurry_s: the same of a run that was interrupted: whoever did that may not wait long (SLURM kills after 30 s).
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Callback],
        *,
        capacity: int = 256,
        patience_s: float = 60.0,
        hurry_s: float = 8.0,
    ) -> None:
        self.name = name
        self._patience_s, self._hurry_s = patience_s, min(hurry_s, patience_s)
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
        patience = self._hurry_s if interrupted(result, error) else self._patience_s
        deadline = time.monotonic() + patience
        self._put(lambda callback: callback.on_end(result, error), until=deadline)
        self._put(None, until=deadline)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._dead.set()
            self._warn(f"did not end within {patience:g} s; its last records may be missing")

    def _put(self, call: Call | None, *, until: float | None = None) -> None:
        if self._dead.is_set():
            return
        wait_s = 0.0 if until is None else until - time.monotonic()
        try:
            self._queue.put(call, block=wait_s > 0, timeout=max(wait_s, 0.0))
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
