"""`cabruca train --workers N`: the same preparation, run folder and result as in one process, on many workers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cabruca.config.schema import Config
from cabruca.distributed.cluster import cluster_for
from cabruca.distributed.group import muster, open_desk, run_group
from cabruca.distributed.mirror import Mirror, inside
from cabruca.distributed.team import Team, check_batch
from cabruca.distributed.train_job import TrainJob
from cabruca.distributed.worker import Place
from cabruca.errors import RunError
from cabruca.preparing import (
    Planned,
    TaskFactory,
    best_of,
    claim,
    make_task,
    plan_training,
    recipe_of,
    tell,
    write_facts,
)
from cabruca.run import Seat, Wrap, already_finished, tell_how_to_go_on, tested, unchanged
from cabruca.tracking.log import EarlyLog, RunLog, terminal
from cabruca.tracking.progress import progress_of
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import StatusFile, read_status
from cabruca.tracking.study_place import StudyPlace
from cabruca.train.protocols import NOTICE, Callback, State, TrainResult
from cabruca.train.watchers import Watchers

_log = logging.getLogger("cabruca.distributed")


def train_on_workers(
    config: Config,
    *,
    resume: str | None = None,
    init_from: str | None = None,
    explicit: Mapping[str, Any] | None = None,
    quiet: bool = False,
    json: bool = False,
    task_factory: TaskFactory | None = None,
    callbacks: Sequence[Callback] = (),
    wrap: Wrap = unchanged,
    within: StudyPlace | None = None,
    test: bool = True,
) -> TrainResult:
    """Train as `distributed.*` says and leave the same run folder behind as `run.run_training` would.

    Args: as `run.run_training`; of `callbacks`, which watch here, records come without pictures; `wrap` is sent to the
        workers, and the reporter it is put around is rank 0's.

    Returns:
        How it ended; `exit_code` is 143 or 130 after a signal, else 0.

    Raises:
        CabrucaError: something a person can mend, with the worker that met it. TrainingDiverged: see there.
    """
    recipe = recipe_of(task_factory)
    with ExitStack() as stack:
        early = EarlyLog(quiet=quiet)
        with early:
            _look_into_storage(config, resume, own=within is not None)
            planned = plan_training(config, resume=resume, init_from=init_from, explicit=explicit, claims=True)
        plan = planned.plan
        if plan.finished is not None:
            assert plan.run_dir is not None
            progress = progress_of(plan.config, quiet=quiet, json=json)
            result = already_finished(plan, recipe, [progress], quiet=quiet, test=test)
            _store_test(config, plan.run_dir)
            return result
        with early:
            made = make_task(planned, recipe, config)
            tell(made.findings)
            statistics, weights = made.task.state(), made.weights
            del made  # data and network of the driver
            stack.enter_context(cluster_for(plan.config))
            import ray

            team = muster(ray, plan.config, shares=within is not None)
            check_batch(plan.config, team)
        run_dir, own = claim(plan)
        progress = progress_of(own, quiet=quiet, json=json, best=best_of(plan))
        driver = _Driver(run_dir, own, team, Watchers([progress, *callbacks]), quiet, Seat(wrap, within, test))
        result = driver.go(planned, task=recipe.task, statistics=statistics, weights=weights, said=early.records)
    if result.state == "interrupted":
        tell_how_to_go_on(run_dir, *_flags(config))
    if result.state != "finished" or not test:
        return result
    result = tested(result, recipe, run_dir, own, quiet=quiet)
    _store_test(own, run_dir)
    return result


def _store_test(config: Config, run_dir: RunDir) -> None:
    """The test at a run's end is the driver's: its numbers, pictures and log follow the rest of the run's folder.

    Raises:
        RunError: the place refuses.
    """
    storage = config.distributed.storage_path
    if storage is not None and run_dir.test.is_dir():
        Mirror(storage, run_dir.name).push(run_dir, [run_dir.test, run_dir.log])


def _flags(config: Config) -> list[str]:
    """The flags that ask for these workers again."""
    asked, address = config.distributed.num_workers, config.distributed.address
    number = f"{asked[0]}-{asked[1]}" if isinstance(asked, tuple) else str(asked)
    return ["--workers", number, *(["--address", address] if address else [])]


def _look_into_storage(config: Config, resume: str | None, *, own: bool) -> None:
    """Fetch a run that is to go on; refuse a name that is taken there, unless it is the study's `own`.

    Raises:
        RunError: see `Mirror`; a run of that name is there.
    """
    storage, name = config.distributed.storage_path, config.experiment_name
    if storage is None or name is None:
        return
    mirror = Mirror(storage, name)
    if resume == "auto":
        if mirror.holds_run() and mirror.fetch(RunDir(Path(config.output_dir) / name)):
            _log.info("fetched the run from %s", mirror.uri, extra=NOTICE)
    elif resume is None and not own and mirror.holds_run():
        raise RunError(
            f"{mirror.uri} already holds a run; use another --experiment-name, or go on with it: --resume auto"
        )


@dataclass(frozen=True)
class _Driver:
    """The driver's side of a run whose folder is claimed."""

    run_dir: RunDir
    config: Config
    team: Team
    watchers: Watchers
    quiet: bool
    seat: Seat = field(default_factory=Seat)

    def go(
        self,
        planned: Planned,
        *,
        task: TaskFactory,
        statistics: State,
        weights: Mapping[str, Any] | None,
        said: Sequence[logging.LogRecord],
    ) -> TrainResult:
        log = RunLog(self.run_dir.log, quiet=self.quiet, said=said)
        status = StatusFile(self.run_dir.status)
        log.open()
        try:
            status.set("starting", epoch=int((planned.plan.state or {}).get("epoch", 0)), message="starting workers")
            status.start()
            _log.info("run folder: %s", self.run_dir.path, extra=NOTICE)
            _log.info("%s, gradients over %s", self.team.describe(), self.team.backend, extra=NOTICE)
            write_facts(self.run_dir, self.config, "cuda" if self.team.use_gpu else "cpu", weights)
            result = self._train(planned, task, statistics, status)
        except BaseException as error:
            status.close()
            self._mark(error)
            self.watchers.end(None, error)
            raise
        else:
            self.watchers.end(result, None)
            return result
        finally:
            status.close()
            log.close()

    def _train(self, planned: Planned, task: TaskFactory, statistics: State, status: StatusFile) -> TrainResult:
        import ray

        storage = self.config.distributed.storage_path
        mirror = None if storage is None else Mirror(storage, self.run_dir.name)
        if mirror is not None:
            mirror.push(self.run_dir)
        source, state = planned.source, planned.plan.state
        job = TrainJob(
            place=Place(self.team.cpus, self.team.use_gpu, self.config.data.num_workers, str(Path.cwd())),
            desk=open_desk(ray),
            config=self.config,
            run_dir=str(self.run_dir.path.absolute()),
            task=task,
            statistics=statistics,
            begin=None if state is None else ray.put(state),
            weights=None if source is None or planned.begin is None else ray.put((source.weights, planned.begin[0])),
            wrap=self.seat.wrap,
            within=self.seat.within,
        )
        hearing = _Hearing(self.watchers, status, self.quiet)
        result, signal_number = run_group(job, self.team, self.config, hear=hearing, scratch=_scratch(self.config))
        if mirror is not None:
            mirror.fetch(self.run_dir)
        assert isinstance(result, TrainResult)
        if signal_number is not None and result.state == "interrupted":
            return replace(result, exit_code=128 + signal_number)
        return result

    def _mark(self, error: BaseException) -> None:
        """Whoever wrote the status may be dead: say how the run is left."""
        lines = str(error).strip().splitlines()
        message = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        epoch = int((read_status(self.run_dir.status) or {}).get("epoch", 0))
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        StatusFile(self.run_dir.status).set(state, epoch=epoch, message=message)  # type: ignore[arg-type]
        _log.error("failed: %s", message)


def _scratch(config: Config) -> str:
    """Where Ray Train keeps its own books of a run: a place that every node sees."""
    place = inside(config.distributed.storage_path or config.output_dir, ".ray")
    return place if "://" in place else str(Path(place).absolute())


class _Hearing:
    """Hands what rank 0 tells on to the watchers here, and to the terminal."""

    def __init__(self, watchers: Watchers, status: StatusFile, quiet: bool) -> None:
        self._watchers, self._status = watchers, status
        self._terminal = terminal(notices=not quiet)

    def __call__(self, kind: str, *rest: Any) -> None:
        if kind == "workers":
            self._status.close()  # from here on rank 0 writes it
            number, attempt, epoch, step = rest
            if attempt:
                workers = "1 worker" if number == 1 else f"{number} workers"
                _log.warning("going on after epoch %d, step %d with %s (attempt %d)", epoch, step, workers, attempt + 1)
        elif kind == "log":
            level, text = rest
            record = logging.LogRecord("cabruca", level, "", 0, "%s", (text,), None)
            record.notice = level < logging.WARNING
            self._terminal.handle(record)
        elif kind in ("start", "step", "validation", "epoch"):
            getattr(self._watchers, kind)(*rest)
