"""The two lines from a trial to its study: through Ray Tune, and from a worker through the study's desk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cabruca.distributed.study_desk import Order, TakeOver
from cabruca.errors import RunError

LOOK_S = 0.02
"""Seconds between a worker's looks at whether the study has decided."""

ORDER_S = 60.0
"""How long a trial waits for what the study wants of it."""


def order_at(desk: Any, number: int) -> Order:
    """What the study wants of a trial. The driver sends it and does not wait until the desk has it: this side does.

    Raises:
        RunError: it does not come.
    """
    import ray

    end = time.monotonic() + ORDER_S
    while True:
        order: Order | None = ray.get(desk.order.remote(number))
        if order is not None:
            return order
        if time.monotonic() > end:
            raise RunError(f"trial {number} was begun and its order did not come in {ORDER_S:.0f} s; resume the study")
        time.sleep(LOOK_S)


@dataclass(frozen=True)
class _DeskSide:
    desk: Any
    number: int

    def stop_asked(self) -> str | None:
        import ray

        found: str | None = ray.get(self.desk.stop_of.remote(self.number))
        return found

    def take_over_asked(self, epoch: int) -> TakeOver | None:
        import ray

        found: TakeOver | None = ray.get(self.desk.exchange_of.remote(self.number, epoch))
        return found

    def leave_asked(self) -> str | None:
        import ray

        found: str | None = ray.get(self.desk.leave_asked.remote())
        return found


class TuneLine(_DeskSide):
    """In the trial's own process: Ray Tune lets it go on when the driver has decided."""

    def tell(self, result: Mapping[str, Any]) -> None:
        from ray import tune

        tune.report({"trial": self.number, **result})


class DeskLine(_DeskSide):
    """In a worker, rank 0: the trial's own process hands it on."""

    def tell(self, result: Mapping[str, Any]) -> None:
        import ray

        ray.get(self.desk.tell.remote(self.number, dict(result)))
        while not ray.get(self.desk.is_decided.remote(self.number, result["epoch"])):
            time.sleep(LOOK_S)


class LeaveLine(_DeskSide):
    """Of a run that nobody stops early: it hears only that all are to leave."""

    def tell(self, result: Mapping[str, Any]) -> None:
        """Nobody is told."""

    def stop_asked(self) -> str | None:
        return None

    def take_over_asked(self, epoch: int) -> TakeOver | None:
        return None
