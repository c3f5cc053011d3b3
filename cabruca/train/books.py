"""What a run writes down: the sums of the running epoch, its records, and the state that continues it."""

from __future__ import annotations

import time
from dataclasses import replace

from cabruca.config.schema import Config
from cabruca.train.checkpoint import BESIDE
from cabruca.train.device import memory
from cabruca.train.learner import Learner
from cabruca.train.meters import Sums
from cabruca.train.protocols import Metrics, Record, Save, State, Task, Validation
from cabruca.train.shortage import Cut
from cabruca.train.state import Place, generators, machine_facts, snapshot
from cabruca.train.step import Outcome


class Books:
    """Kept alike on every rank.

    Args:
        config, task: as given to `train`.
        learner: what learns; its state is saved.
        place: where the run is; the loop moves it on.
        cut: how an optimizer step is cut.
    """

    def __init__(self, config: Config, task: Task, learner: Learner, place: Place, cut: Cut) -> None:
        self.config, self.task, self.runtime = config, task, learner.runtime
        self.learner, self.place, self.cut = learner, place, cut
        self.sums = Sums()
        self.last_metrics: Metrics = {}
        self.beside: State = {}
        self._began = time.monotonic()

    def restore(self, saved: State) -> None:
        """Go on with the sums of an unfinished epoch."""
        everywhere = Sums.from_state(saved.get("epoch_sums", {}))
        # the saved sums are those of all ranks together: one rank carries them on
        self.sums = everywhere if self.runtime.is_main else replace(everywhere, losses={}, pictures=0)
        self.beside = dict(saved.get(BESIDE, {}))

    def step(self, outcome: Outcome) -> Record:
        """Book an optimizer step; its record has numbers every `training.log_interval` steps."""
        self.sums.add(outcome.sums)
        metrics: Metrics = {}
        if self.place.step % self.config.training.log_interval == 0:
            metrics = {**Sums.merge(self.runtime.gather(outcome.sums)).metrics(), **self.learner.rates()}
        return self.record(metrics)

    def epoch(self, validation: Validation | None, validation_s: float) -> Metrics:
        """Close the epoch's books; its metrics, those of the validation in front of `memory/...` included."""
        metrics = {**Sums.merge(self.runtime.gather(self.sums)).metrics(), **self.learner.rates()}
        if validation is not None:
            metrics |= {f"val/{name}": value for name, value in validation.metrics.items()}
            self.beside = dict(validation.beside)
        metrics |= {"time/train_s": self.sums.train_s, "time/epoch_s": self.sums.train_s + validation_s}
        metrics |= memory(self.runtime.device)
        if self.config.training.on_oom == "shrink":
            metrics["memory/batch_size"] = float(self.cut.batch_size)
        self.sums, self.last_metrics = Sums(), metrics
        return metrics

    def record(self, metrics: Metrics, validation: Validation | None = None) -> Record:
        stage = self.place.stage + self.learner.stage.index
        if validation is None:
            return Record(self.place.epoch, self.place.step, metrics, stage)
        return Record(self.place.epoch, self.place.step, metrics, stage, validation.pictures, validation.findings)

    def save(self) -> Save:
        """A save of now. What the ranks must say together is asked here, because only one of them builds the state."""
        self.learner.share_facts()
        sums = Sums.merge(self.runtime.gather(self.sums))
        random = self.runtime.gather(generators(self.runtime.device))
        return Save(state=lambda: self._state(sums, random))

    def _state(self, sums: Sums, random: list[State]) -> State:
        elapsed = self.place.elapsed_s + time.monotonic() - self._began
        state = {
            **self.place.to_state(),
            **self.learner.state_dict(),
            "rng": random,
            "epoch_sums": sums.to_state(),
            "config": self.config.to_dict(),
            "task": self.task.state(),
            BESIDE: self.beside,
            "elapsed_s": elapsed,
            **machine_facts(),
        }
        copied: State = snapshot(state)
        return copied
