"""A network that is told the truth, inside Ray workers, some of which are lost on the way."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from perfect import Disc, Perfect

HW = (200, 220)
RNG = np.random.default_rng(5)
DISCS = [Disc(*RNG.uniform(0, 200, 2), RNG.uniform(4, 18), int(RNG.integers(1, 3))) for _ in range(40)]


@dataclass(frozen=True)
class Told:
    """Makes the network in a worker; `lost_at`: the file whose absence lets the worker die at its second batch."""

    lost_at: str = ""
    always: bool = False

    def __call__(self) -> Any:
        return Dying(self)


class Dying(Perfect):
    def __init__(self, told: Told) -> None:
        super().__init__(DISCS, HW)
        self._told = told

    def __call__(self, batch: Any) -> Any:
        if len(self.calls) == 1 and self._told.lost_at:
            once = Path(self._told.lost_at)
            if self._told.always or not once.exists():
                once.touch()
                os._exit(1)
        return super().__call__(batch)
