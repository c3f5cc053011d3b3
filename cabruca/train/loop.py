"""The train function: one loop for a laptop, many workers and the trials of a study.

It knows a Task, a Runtime, a Reporter and Callbacks (`protocols.py`) and nothing else of the world. The recipe of an
epoch: cut the permuted samples into optimizer steps; take them; validate; let schedule and patience see the monitored
metric; report record and checkpoint. Whatever stops it, the state that is saved continues it exactly.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from cabruca.config.redact import redact
from cabruca.config.schema import Config
from cabruca.errors import TrainingDiverged
from cabruca.runtime import Runtime
from cabruca.train.batching import BatchPlan, epoch_order
from cabruca.train.device import empty_cache, memory
from cabruca.train.ending import ending
from cabruca.train.learner import Learner
from cabruca.train.meters import Sums
from cabruca.train.monitor import check_monitor, not_measured
from cabruca.train.protocols import (
    NOTICE,
    Callback,
    Metrics,
    Record,
    Reporter,
    RunInfo,
    Save,
    State,
    StopTraining,
    Task,
    TrainResult,
    Validation,
)
from cabruca.train.state import (
    Place,
    generators,
    machine_facts,
    restore_generators,
    seed_generators,
    snapshot,
    warn_of_other_threads,
)
from cabruca.train.step import Outcome
from cabruca.train.watchers import Watchers

log = logging.getLogger("cabruca")


def train(
    config: Config, task: Task, *, runtime: Runtime, reporter: Reporter, callbacks: Sequence[Callback] = ()
) -> TrainResult:
    """Train `task` as `config` says; on every rank alike.

    Args:
        config: resolved; of it the sections optimizer, scheduler, training, validation.frequency, data.batch_size.
        task: what is learnt.
        runtime: which rank of how many, on which device.
        reporter: keeps records and checkpoints, knows where to resume, may stop the run.
        callbacks: watch, on rank 0 alone; one that raises is warned about and changes nothing.

    Returns:
        How it ended: `finished` (all epochs, or early stopping), `stopped` or `interrupted` (saved, can be resumed).

    Raises:
        ConfigError: the configuration does not fit the run (batch arithmetic, parameter groups, monitored metric).
        CheckpointError: the state to resume from is of another network or optimizer.
        TrainingDiverged: `training.max_skipped_steps` optimizer steps in a row were not finite.
    """
    watchers = Watchers(callbacks if runtime.is_main else ())
    result: TrainResult | None = None
    error: BaseException | None = None
    try:
        result = _Run(config, task, runtime, reporter, watchers).go()
        return result
    except BaseException as raised:
        error = raised
        raise
    finally:
        watchers.end(result, error)
        reporter.finish(result, error)


class _Run:
    """What a run holds between its steps. Arguments as in `train`."""

    def __init__(self, config: Config, task: Task, runtime: Runtime, reporter: Reporter, watchers: Watchers) -> None:
        self.config, self.settings = config, config.training
        self.task, self.runtime, self.reporter, self.watchers = task, runtime, reporter, watchers
        saved = reporter.resume()
        check_monitor(config, task)
        self.place = Place.from_state(saved or {})
        self.sums = Sums()
        self.last_metrics: Metrics = {}
        self.began = time.monotonic()
        seed_generators(self.settings.seed, runtime)
        total_steps = sum(self._plan(epoch).steps for epoch in range(self.settings.num_epochs))
        self.learner = Learner(config, task, runtime, total_steps=total_steps, first_step=self.place.step)
        if saved is not None:
            self._restore(saved)
        self._start()

    def _restore(self, saved: State) -> None:
        """A state without an optimizer (weights handed on to a new stage) begins afresh in all else."""
        self.learner.load_weights(saved.get("model", {}))
        if "optimizer" not in saved:
            return
        warn_of_other_threads(saved)
        self.learner.load_state_dict(saved)
        self.learner.set_rates(self.place.step - 1, self.place.epoch)  # those of the step that was taken last
        everywhere = Sums.from_state(saved.get("epoch_sums", {}))
        # the saved sums are those of all ranks together: one rank carries them on
        self.sums = everywhere if self.runtime.is_main else replace(everywhere, losses={}, pictures=0)
        random = saved.get("rng", [])
        if self.runtime.rank < len(random):
            restore_generators(random[self.runtime.rank], self.runtime.device)

    def _start(self) -> None:
        plan = self._plan(min(self.place.epoch, self.settings.num_epochs - 1))
        log.info("%s", plan.describe())
        if self.settings.empty_cache_freq and self.runtime.device.type == "cpu":
            every = self.settings.empty_cache_freq
            log.info("training.empty_cache_freq %d: a CPU has no cache to empty", every, extra=NOTICE)
        self.watchers.start(
            RunInfo(
                num_epochs=self.settings.num_epochs,
                steps_per_epoch=plan.steps,
                batch_size=plan.batch_size,
                effective_batch=plan.effective_batch,
                device=str(self.runtime.device),
                precision=self.learner.precision.name,
                parameters=sum(p.numel() for p in self.learner.stepper.parameters),
                resumed_epoch=self.place.epoch,
                resumed_step=self.place.step,
                config=redact(self.config.to_dict()),
            )
        )

    def go(self) -> TrainResult:
        """Train until all epochs are done, patience is out, or somebody stops it."""
        try:
            while self.place.epoch < self.settings.num_epochs and not self._patience_is_out():
                self._train_epoch()
                self._end_epoch()
        except StopTraining as stop:
            return ending(self.place, self.settings, self.last_metrics, stop)
        return ending(self.place, self.settings, self.last_metrics, None)

    def _plan(self, epoch: int) -> BatchPlan:
        return BatchPlan(
            num_samples=self.task.num_train_samples(epoch),
            batch_size=self.config.data.batch_size,
            accumulation=self.settings.gradient_accumulation_steps,
            world_size=self.runtime.world_size,
            rank=self.runtime.rank,
        )

    def _train_epoch(self) -> None:
        """The epoch's optimizer steps that are still to be taken."""
        place, plan = self.place, self._plan(self.place.epoch)
        order = epoch_order(self.settings.seed, place.epoch, plan.num_samples)
        steps = range(place.step_in_epoch, plan.steps)
        cuts = [plan.micro_batches(order, step) for step in steps]
        self.learner.model.train()
        with ExitStack() as stack:
            batches = self._batches([share for cut in cuts for share in cut], stack)
            for step, cut in zip(steps, cuts, strict=True):
                self.learner.set_rates(place.step, place.epoch)
                outcome = self.learner.stepper(batches, len(cut), plan.pictures(step))
                place.step += 1
                place.step_in_epoch = step + 1
                self._after_step(outcome)

    def _batches(self, shares: list[list[int]], stack: ExitStack) -> Iterator[Any]:
        """The task's batches; loader processes end with the epoch, however it ends."""
        batches = iter(self.task.train_batches(self.place.epoch, shares, self.runtime) if shares else ())
        if hasattr(batches, "close"):
            stack.callback(batches.close)
        return batches

    def _after_step(self, outcome: Outcome) -> None:
        self.sums.add(outcome.sums)
        self._watch_divergence(outcome)
        every = self.settings.empty_cache_freq
        if every and self.place.step % every == 0:
            empty_cache(self.runtime.device)
        metrics: Metrics = {}
        if self.place.step % self.settings.log_interval == 0:
            metrics = {**Sums.merge(self.runtime.gather(outcome.sums)).metrics(), **self.learner.rates()}
        record = self._record(metrics)
        self.watchers.step(record)
        self._ask_reporter(record)

    def _watch_divergence(self, outcome: Outcome) -> None:
        place, limit = self.place, self.settings.max_skipped_steps
        place.skipped_in_a_row = place.skipped_in_a_row + 1 if outcome.skipped else 0
        if not outcome.skipped:
            return
        log.warning("optimizer step %d skipped: its gradients are not finite", place.step)
        if place.skipped_in_a_row >= limit:
            pictures = [name for names in self.runtime.gather(outcome.pictures) for name in names]
            raise TrainingDiverged(
                f"{limit} optimizer steps in a row had gradients that are not finite (training.max_skipped_steps; "
                f"epoch {place.epoch + 1}, step {place.step}, pictures of the last: "
                f"{', '.join(pictures) or 'not named by the task'}); lower optimizer.lr or look at these pictures"
            )

    def _ask_reporter(self, record: Record) -> None:
        """Save, or save and stop, when the reporter of any rank says so."""
        answer = self.reporter.heartbeat(record)
        stop = self.runtime.any(answer == "stop")
        if stop or self.runtime.any(answer == "save"):
            self.reporter.save(record, self._save())
        if stop:
            raise StopTraining(f"interrupted after step {self.place.step}, which is saved", "interrupted")

    def _end_epoch(self) -> None:
        """Validate when it is time, close the epoch's books, and report them."""
        place, settings = self.place, self.settings
        place.epoch += 1
        place.step_in_epoch = 0
        metrics = {**Sums.merge(self.runtime.gather(self.sums)).metrics(), **self.learner.rates()}
        began = time.perf_counter()
        validation = self._validate()
        took = time.perf_counter() - began
        if validation is not None:
            metrics |= {f"val/{name}": value for name, value in validation.metrics.items()}
        metrics |= {"time/train_s": self.sums.train_s, "time/epoch_s": self.sums.train_s + took}
        metrics |= memory(self.runtime.device)
        better = self._judge(metrics) if validation is not None else False
        self.sums, self.last_metrics = Sums(), metrics
        record = self._record(metrics, validation)
        if validation is not None:
            self.watchers.validation(record)
        self.watchers.epoch(record)
        numbered = settings.save_frequency > 0 and place.epoch % settings.save_frequency == 0
        self.reporter.report(record, replace(self._save(), best=better, numbered=numbered))

    def _validate(self) -> Validation | None:
        """Every `validation.frequency` epochs and after the last one; else None."""
        epoch = self.place.epoch
        if epoch % self.config.validation.frequency and epoch < self.settings.num_epochs:
            return None
        learner = self.learner
        learner.share_facts()
        return self.task.validate(learner.model, self.runtime, learner.precision.autocast, epoch=epoch)

    def _judge(self, metrics: Metrics) -> bool:
        """Let best, patience and plateau see the monitored metric; True where it is the best so far."""
        name = self.settings.monitor_metric
        if name not in metrics:
            raise not_measured(name, [n for n in metrics if n.startswith(("val/", "train/"))])
        # rank 0's number decides for all: ranks that disagree in a last bit must not part ways
        value = float(self.runtime.gather(metrics[name])[0])
        self.learner.schedule.observe(value)
        return self.place.judge(value, minimize=self.settings.minimize_metric)

    def _patience_is_out(self) -> bool:
        patience = self.settings.early_stopping_patience
        return 0 < patience <= self.place.validations_without_improvement

    def _record(self, metrics: Metrics, validation: Validation | None = None) -> Record:
        pictures = validation.pictures if validation else ()
        return Record(self.place.epoch, self.place.step, metrics, self.place.stage, pictures)

    def _save(self) -> Save:
        """A save of now. What the ranks must say together is asked here, because only one of them builds the state."""
        self.learner.share_facts()
        sums = Sums.merge(self.runtime.gather(self.sums))
        random = self.runtime.gather(generators(self.runtime.device))
        return Save(state=lambda: self._state(sums, random))

    def _state(self, sums: Sums, random: list[State]) -> State:
        elapsed = self.place.elapsed_s + time.monotonic() - self.began
        state = {
            **self.place.to_state(),
            **self.learner.state_dict(),
            "rng": random,
            "epoch_sums": sums.to_state(),
            "config": self.config.to_dict(),
            "task": self.task.state(),
            "elapsed_s": elapsed,
            **machine_facts(),
        }
        copied: State = snapshot(state)
        return copied
