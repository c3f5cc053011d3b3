"""How a trial says that it ended: its last report to Ray Tune, which the study's search reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ending:
    """How an attempt at a trial ended; its state is `finished`, `stopped`, `failed`, `interrupted` or `paused`."""

    state: str
    epoch: int
    reason: str

    def to_json(self) -> str:
        return json.dumps(self.__dict__)

    @classmethod
    def from_json(cls, text: str) -> Ending:
        return cls(**json.loads(text))


def last_words(number: int, ending: Ending) -> dict[str, Any]:
    """The last report of a trial. Ray Tune, told that it is `done`, does not ask for another one."""
    return {"trial": number, "end": ending.to_json(), "done": True}
