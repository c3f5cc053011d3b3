"""Calls the callbacks of rank 0. Who watches must never stop what is watched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from cabruca.train.protocols import Callback, Record, RunInfo, TrainResult

log = logging.getLogger("cabruca")


class Watchers:
    """The callbacks, in order; one that raises is warned about once and called again next time."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = list(callbacks)
        self._warned: set[int] = set()

    def start(self, info: RunInfo) -> None:
        self._call(lambda callback: callback.on_start(info))

    def step(self, record: Record) -> None:
        self._call(lambda callback: callback.on_step(record))

    def validation(self, record: Record) -> None:
        self._call(lambda callback: callback.on_validation(record))

    def epoch(self, record: Record) -> None:
        self._call(lambda callback: callback.on_epoch(record))

    def end(self, result: TrainResult | None, error: BaseException | None) -> None:
        self._call(lambda callback: callback.on_end(result, error))

    def _call(self, hook: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            try:
                hook(callback)
            except Exception as error:
                if id(callback) not in self._warned:
                    self._warned.add(id(callback))
                    log.warning(
                        "%s failed and training goes on without what it shows (%s: %s)",
                        type(callback).__name__,
                        type(error).__name__,
                        error,
                    )
