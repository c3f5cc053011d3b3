"""The desk: a small actor that the driver and the workers talk over. It outlives workers that are killed."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

MANY = 10_000
"""Messages that wait for the driver; older ones are dropped."""


@dataclass(frozen=True)
class Failure:
    """A failure that another attempt would only repeat: who, the error's class, what it said."""

    rank: int
    kind: str
    message: str


@dataclass
class Desk:
    """Runs as a Ray actor that takes no resources; methods are called with `.remote`."""

    messages: deque[tuple[Any, ...]] = field(default_factory=lambda: deque(maxlen=MANY))
    stop: str | None = None
    final: Failure | None = None
    outcome: Any = None
    attempts: int = 0
    heard_at: float = field(default_factory=time.monotonic)
    place: Any = None
    troubles: set[tuple[Any, ...]] = field(default_factory=set)

    def pulse(self) -> None:
        """Rank 0 lives."""
        self.heard_at = time.monotonic()

    def silent_s(self) -> float:
        """Seconds since rank 0 was heard last, or since the desk was opened."""
        return time.monotonic() - self.heard_at

    def began(self) -> int:
        """A group of workers started (rank 0 says so); how many did before it."""
        self.attempts += 1
        return self.attempts - 1

    def saved(self, place: Any) -> None:
        """The run's folder holds a checkpoint of this place of this run: what it began with is not needed again."""
        self.place = place

    def has_saved(self) -> bool:
        return self.place is not None

    def tell(self, *message: Any) -> None:
        """A message for the driver."""
        self.messages.append(message)

    def take(self) -> list[tuple[Any, ...]]:
        """All messages since the last call."""
        taken = list(self.messages)
        self.messages.clear()
        return taken

    def ask_stop(self, reason: str) -> None:
        """The driver asks the workers to save and stop."""
        self.stop = self.stop or reason

    def stop_asked(self) -> str | None:
        return self.stop

    def trouble(self, rank: int, kind: str, message: str) -> None:
        """An error that another attempt may not meet: a lost neighbour, a full disk of that machine.

        The same error of the same rank with nothing saved in between is one that will come for ever.
        """
        self.tell("trouble", rank, f"{kind}: {message}")
        same = (rank, kind, message, self.place)
        if same in self.troubles:
            self.fail(rank, kind, message)
        self.troubles.add(same)

    def fail(self, rank: int, kind: str, message: str) -> None:
        """A failure that another attempt would only repeat; the first one counts."""
        self.final = self.final or Failure(rank, kind, message)

    def failure(self) -> Failure | None:
        return self.final

    def finish(self, outcome: Any) -> None:
        """What rank 0's work came to."""
        self.outcome = outcome

    def result(self) -> Any:
        return self.outcome
