"""The study's desk: a small actor that the driver and its trials talk over. It outlives trials that are killed."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cabruca.config.schema import Config
from cabruca.tracking.study_place import StudyPlace


@dataclass(frozen=True)
class Order:
    """What a trial is told when it begins, or begins again.

    Attributes:
        number: of the trial. config: its whole configuration; folder and name are in it.
        place: the study, for the trial's trackers.
        known: epochs that the study's journal holds of it. elapsed_s: seconds that they took.
        stop: why the study stops it where it stands, decided before a kill; None: it goes on.
    """

    number: int
    config: Config
    place: StudyPlace | None = None
    known: int = 0
    elapsed_s: float = 0.0
    stop: str | None = None


@dataclass(frozen=True)
class TakeOver:
    """After `epoch` the trial takes over the weights in the run folder `donor` and goes on with `config`."""

    epoch: int
    donor: str
    config: Config


@dataclass
class StudyDesk:
    """Runs as a Ray actor that takes no resources; methods are called with `.remote`."""

    orders: dict[int, Order] = field(default_factory=dict)
    known: dict[int, tuple[int, float]] = field(default_factory=dict)
    stops: dict[int, str] = field(default_factory=dict)
    exchanges: dict[int, TakeOver] = field(default_factory=dict)
    leave: str | None = None
    told: dict[int, deque[Mapping[str, Any]]] = field(default_factory=lambda: defaultdict(deque))
    heard: dict[int, int] = field(default_factory=dict)

    def hand_out(self, order: Order) -> None:
        """The driver: this trial begins now, or goes on."""
        self.orders[order.number] = order
        self.known[order.number] = (order.known, order.elapsed_s)
        self.heard[order.number] = order.known
        if order.stop is not None:
            self.stops[order.number] = order.stop

    def order(self, number: int) -> Order | None:
        """A trial's process: what am I? Knows all that was written down of the trial until now; None: not here yet."""
        found = self.orders.get(number)
        if found is None:
            return None
        known, elapsed_s = self.known[number]
        self.told.pop(number, None)
        return Order(number, found.config, found.place, known, elapsed_s)

    def note(self, number: int, epoch: int, elapsed_s: float, stop: str | None = None) -> None:
        """The driver: the journal holds this epoch of the trial; with `stop`, the study stops it there."""
        self.known[number] = (epoch, elapsed_s)
        if stop is not None:
            self.stops[number] = stop

    def stop_of(self, number: int) -> str | None:
        """Why the study stops this trial, or None."""
        return self.stops.get(number)

    def exchange(self, number: int, take_over: TakeOver) -> None:
        """The driver: the trial takes over another's weights; from here on this is its configuration."""
        self.exchanges[number] = take_over
        self.orders[number] = replace(self.orders[number], config=take_over.config)

    def exchange_of(self, number: int, epoch: int) -> TakeOver | None:
        """What the trial takes over after this epoch, or None."""
        found = self.exchanges.get(number)
        return found if found is not None and found.epoch == epoch else None

    def forget(self, number: int) -> None:
        """The driver: this trial has ended."""
        for books in (self.orders, self.known, self.stops, self.exchanges, self.told, self.heard):
            books.pop(number, None)

    def ask_leave(self, reason: str) -> None:
        """The driver: every trial saves and ends; it can go on later."""
        self.leave = self.leave or reason

    def leave_asked(self) -> str | None:
        return self.leave

    def tell(self, number: int, result: Mapping[str, Any]) -> None:
        """Rank 0 of a trial with workers: an epoch is done and saved. The trial's own process takes it from here."""
        self.told[number].append(result)

    def take(self, number: int) -> list[Mapping[str, Any]]:
        """The trial's own process: what rank 0 has told since the last call."""
        waiting = self.told.pop(number, None)
        return list(waiting) if waiting else []

    def answer(self, number: int, epoch: int) -> None:
        """The trial's own process: the study has decided on this epoch."""
        self.heard[number] = max(epoch, self.heard.get(number, 0))

    def is_decided(self, number: int, epoch: int) -> bool:
        """Rank 0: has the study decided on this epoch?"""
        return self.heard.get(number, 0) >= epoch
