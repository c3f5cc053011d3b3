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
from itertools import cycle, islice
from typing import Any

from cabruca.config.redact import redact
from cabruca.config.schema import Config
from cabruca.config.stages import StageSpan, stages_of
from cabruca.runtime import Runtime
from cabruca.train.batching import BatchPlan, epoch_order
from cabruca.train.books import Books
from cabruca.train.compiling import StepNotCompiled
from cabruca.train.device import empty_cache, forget_peak
from cabruca.train.divergence import watch_divergence
from cabruca.train.ending import ending
from cabruca.train.judging import Judge
from cabruca.train.learner import Learner
from cabruca.train.monitor import check_monitor
from cabruca.train.protocols import (
    NOTICE,
    Callback,
    Record,
    Reporter,
    RunInfo,
    State,
    StopTraining,
    Task,
    TrainResult,
)
from cabruca.train.shortage import Cut, StepTooLarge
from cabruca.train.state import Place, restore_generators, seed_generators, warn_of_other_threads
from cabruca.train.step import Outcome
from cabruca.train.turns import opening, turning
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
        OutOfMemory: an optimizer step or a validation does not fit into memory; says which flags make it fit.
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
        self.cut = Cut(config, self.place, runtime)
        seed_generators(self.settings.seed, runtime)
        forget_peak(runtime.device)
        self.learner = Learner(
            config,
            task,
            runtime,
            stage_steps=[self._steps(stage) for stage in stages_of(config)],
            first_step=self.place.step,
            stage=int((saved or {}).get("stage_index", 0)),
        )
        self.books = Books(config, task, self.learner, self.place, self.cut)
        self.judge = Judge(config, task, runtime, self.learner, self.place)
        if saved is not None:
            self._restore(saved)
        self._start()

    def _steps(self, stage: StageSpan) -> int:
        return sum(self._plan(epoch).steps for epoch in range(stage.first_epoch, stage.end_epoch))

    def _restore(self, saved: State) -> None:
        """A state without an optimizer (weights handed on to a new stage) begins afresh in all else."""
        self.learner.load_weights(saved)
        if "optimizer" not in saved:
            return
        warn_of_other_threads(saved)
        self.learner.load_state_dict(saved)
        self.learner.set_rates(self.place.step - 1, self.place.epoch)  # those of the step that was taken last
        self.books.restore(saved)
        random = saved.get("rng", [])
        if self.runtime.rank < len(random):
            restore_generators(random[self.runtime.rank], self.runtime.device)

    def _start(self) -> None:
        self._enter()
        if self.settings.compile:
            self.learner.compile(self._trial_batches)
        plan = self._plan(min(self.place.epoch, self.settings.num_epochs - 1))
        log.info("%s", plan.describe())
        if self.settings.empty_cache_freq and self.runtime.device.type == "cpu":
            every = self.settings.empty_cache_freq
            log.info("training.empty_cache_freq %d: a CPU has no cache to empty", every, extra=NOTICE)
        for line in opening(self.learner, self.place):
            log.info("%s", line, extra=NOTICE)
        self.watchers.start(self._info(plan))

    def _info(self, plan: BatchPlan) -> RunInfo:
        return RunInfo(
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
            stages=self.learner.describe_stages(),
        )

    def go(self) -> TrainResult:
        """Train until all epochs are done, patience is out, or somebody stops it."""
        try:
            while self.place.epoch < self.settings.num_epochs and not self.judge.patience_is_out():
                self._train_epoch()
                self._end_epoch()
                for line in self._enter():
                    log.info("%s", line, extra=NOTICE)
        except StopTraining as stop:
            return ending(self.place, self.settings, self.books.last_metrics, stop)
        return ending(self.place, self.settings, self.books.last_metrics, None)

    def _enter(self) -> list[str]:
        """Begin the stage that is due and thaw what is due; patience counts anew in a new stage. Lines for people."""
        new = self.learner.enter(self.place.epoch, self.place.step)
        if new:
            self.place.validations_without_improvement = 0
        return turning(self.learner, self.place, new_stage=new)

    def _plan(self, epoch: int) -> BatchPlan:
        return BatchPlan(
            num_samples=self.task.num_train_samples(epoch),
            batch_size=self.cut.batch_size,
            accumulation=self.cut.accumulation,
            world_size=self.runtime.world_size,
            rank=self.runtime.rank,
        )

    def _train_epoch(self) -> None:
        """The epoch's optimizer steps that are still to be taken; cut finer, and taken again, where one is too large;
        taken again plain where one cannot be compiled.

        Raises:
            OutOfMemory: a step does not fit into memory, and `training.on_oom` or the arithmetic allow no finer cut.
        """
        done = False
        while not done:
            try:
                self._take_steps()
                done = True
            except StepTooLarge as shortage:
                self.cut.answer(shortage, self.learner.stage)
            except StepNotCompiled as failure:
                self.learner.run_plain(str(failure))

    def _take_steps(self) -> None:
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

    def _trial_batches(self, number: int) -> Iterator[Any]:
        """The whole micro-batches of the epoch that is due, over and over: what torch.compile is measured on."""
        plan = self._plan(min(self.place.epoch, self.settings.num_epochs - 1))
        order = epoch_order(self.settings.seed, self.place.epoch, plan.num_samples)
        shares = [share for step in range(plan.steps) for share in plan.micro_batches(order, step)]
        longest = max(map(len, shares), default=0)
        with ExitStack() as stack:
            whole = (share for share in shares if len(share) == longest)
            yield from self._batches(list(islice(cycle(whole), number)), stack)

    def _after_step(self, outcome: Outcome) -> None:
        self.learner.after_step(skipped=outcome.skipped)
        watch_divergence(outcome, self.place, self.runtime, limit=self.settings.max_skipped_steps)
        every = self.settings.empty_cache_freq
        if every and self.place.step % every == 0:
            empty_cache(self.runtime.device)
        record = self.books.step(outcome)
        self.watchers.step(record)
        self._ask_reporter(record)

    def _ask_reporter(self, record: Record) -> None:
        """Save, or save and stop, when the reporter of any rank says so."""
        answer = self.reporter.heartbeat(record)
        stop = self.runtime.any(answer == "stop")
        if stop or self.runtime.any(answer == "save"):
            self.reporter.save(record, self.books.save())
        if stop:
            raise StopTraining(f"interrupted after step {self.place.step}, which is saved", "interrupted")

    def _end_epoch(self) -> None:
        """Validate when it is time, close the epoch's books, and report them."""
        place, settings = self.place, self.settings
        place.epoch += 1
        place.step_in_epoch = 0
        began = time.perf_counter()
        validation = self.judge.validate()
        metrics = self.books.epoch(validation, time.perf_counter() - began)
        better = self.judge.judge(metrics) if validation is not None else False
        record = self.books.record(metrics, validation)
        if validation is not None:
            self.watchers.validation(record)
        self.watchers.epoch(record)
        numbered = settings.save_frequency > 0 and place.epoch % settings.save_frequency == 0
        self.reporter.report(record, replace(self.books.save(), best=better, numbered=numbered))
