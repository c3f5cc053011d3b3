"""What people see while a run trains: a line an epoch, a live bar on a terminal, or JSON for programs.

Three callbacks, of which `progress_of` chooses one: `JsonProgress` (--json: one object a line on stdout),
`LiveProgress` (a terminal), `PlainProgress` (a pipe, a log file, --quiet). The line fits 80 columns.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cabruca.config.schema import Config
from cabruca.tracking.files import to_json
from cabruca.tracking.secrets import hide
from cabruca.tracking.short import duration, short_number
from cabruca.train.protocols import BaseCallback, Record, RunInfo, TrainResult, memory_of
from cabruca.words import counted

WAIT_HINT = 0.2
"""Share of time waiting for data above which the hint is given, for epochs of at least WAIT_HINT_EPOCH_S seconds."""

WAIT_HINT_EPOCH_S = 5.0

_log = logging.getLogger("cabruca.progress")
_WIDTHS = (9, 7, 7, 10, 10, 7, 6, 4, 5, 6)
"""Of the columns: 80 with the spaces between them."""

_PARTS = ("loss_instance", "loss_semantic", "loss_crown", "loss_density")


Best = tuple[float, int]
"""Best value of the monitored metric and the epoch it came from."""


def progress_of(
    config: Config,
    *,
    quiet: bool = False,
    json: bool = False,
    stream: TextIO | None = None,
    best: Best | None = None,
) -> BaseCallback:
    """The callback for this terminal and these flags.

    Args:
        stream: default: stdout. best: of a resumed run, before it was stopped.
    """
    stream = stream or sys.stdout
    if json:
        return JsonProgress(config, stream)
    console = Console(file=stream, highlight=False)  # rich honours NO_COLOR and TERM=dumb itself
    if not quiet and console.is_terminal and not console.is_dumb_terminal:
        return LiveProgress(config, console, best)
    return PlainProgress(config, None if quiet else stream, best)


class PlainProgress(BaseCallback):
    """One line an epoch, into the log always, onto `stream` where there is one."""

    def __init__(self, config: Config, stream: TextIO | None, best: Best | None = None) -> None:
        self._monitor = config.training.monitor_metric
        self._minimize = config.training.minimize_metric
        self._stream = stream
        self._best = best
        self._lines = 0
        self._hinted = False
        self._last_value = math.nan
        self._started = 0.0
        self._first_epoch = 0
        self._info: RunInfo | None = None
        self.num_epochs = 0

    def on_start(self, info: RunInfo) -> None:
        self.num_epochs = info.num_epochs
        self._first_epoch = info.resumed_epoch
        self._started = time.monotonic()
        self._info = info
        self._tell(arithmetic(info))

    def on_epoch(self, record: Record) -> None:
        value = record.metrics.get(self._monitor, math.nan)
        if math.isfinite(value):
            self._last_value = value
            better = self._best is None or (value < self._best[0] if self._minimize else value > self._best[0])
            if better:
                self._best = (value, record.epoch)
        if self._lines % 20 == 0:
            self._tell(self._header(record))
        self._lines += 1
        self._tell(self._line(record))
        if record.metrics.get("time/epoch_s", 0.0) >= WAIT_HINT_EPOCH_S:
            self._hint(record.metrics.get("time/data_wait_share", 0.0))

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if result is not None:
            self._tell(result.message)

    def _hint(self, share: float) -> None:
        if share > WAIT_HINT and not self._hinted:
            self._hinted = True
            self._tell(f"hint: {share:.0%} of the time goes into waiting for data; raise data.num_workers")

    def _header(self, record: Record) -> str:
        name = self._monitor.removeprefix("val/")[:10]
        names = ("epoch", "train", "val", name, "best", "lr", "img/s", "wait", "mem", "ETA")
        heads = " ".join(f"{name:>{width}}" for name, width in zip(names, _WIDTHS, strict=True))
        return heads + "".join(f" {p.removeprefix('loss_')[:8]:>8}" for p in self._parts(record))

    def _line(self, record: Record) -> str:
        m = record.metrics
        best = "-" if self._best is None else _at(*self._best)
        rate = next((v for k, v in m.items() if k.startswith("lr/") and k.endswith("heads")), None)
        if rate is None:
            rate = next((v for k, v in m.items() if k.startswith("lr/")), math.nan)
        memory = memory_of(m) or math.nan
        cells = (
            f"{record.epoch:>4}/{self.num_epochs:<4}",
            f"{short_number(m.get('train/total_loss')):>7}",
            f"{short_number(m.get('val/total_loss')):>7}",
            f"{short_number(self._last_value):>10}",
            f"{best:>10}",
            f"{rate:>7.1e}" if math.isfinite(rate) else f"{'-':>7}",
            f"{_rate(m.get('time/images_per_s', math.nan)):>6}",
            f"{m.get('time/data_wait_share', math.nan):>4.0%}",
            f"{memory / 1024:>4.1f}G",
            f"{duration(self._left_s(record)):>6}",
        )
        return " ".join(cells) + "".join(f" {short_number(m.get(f'train/{p}')):>8}" for p in self._parts(record))

    def _parts(self, record: Record) -> list[str]:
        """The losses of the heads, where the terminal is wide enough for them."""
        wide = shutil.get_terminal_size((80, 24)).columns >= 120
        return [p for p in _PARTS if wide and f"train/{p}" in record.metrics]

    def _left_s(self, record: Record) -> float:
        if self._info is None:
            return math.nan
        done = self._info.work(self._first_epoch, record.epoch) or self._info.work(record.epoch, record.epoch + 1)
        return (time.monotonic() - self._started) / max(done, 1) * self._info.work(record.epoch, self.num_epochs)

    def _tell(self, line: str) -> None:
        _log.info("%s", line)
        if self._stream is not None:
            print(line, file=self._stream, flush=True)


class LiveProgress(PlainProgress):
    """The lines, and under them a bar of the steps of the running epoch with its losses."""

    def __init__(self, config: Config, console: Console, best: Best | None = None) -> None:
        super().__init__(config, None, best)
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("")
        self._metrics: dict[str, float] = {}

    def on_start(self, info: RunInfo) -> None:
        super().on_start(info)
        self._show(info.resumed_epoch, info.resumed_step, {})
        self._bar.start()

    def on_step(self, record: Record) -> None:
        self._show(record.epoch, record.step, record.metrics)

    def on_epoch(self, record: Record) -> None:
        super().on_epoch(record)
        self._show(record.epoch, record.step, {})

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        self._bar.stop()
        super().on_end(result, error)

    def _show(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        info = self._info
        done, total = (step - info.steps_before(epoch), info.steps_in(epoch)) if info else (0, 1)
        self._metrics = metrics = metrics or self._metrics  # most steps have no numbers: the last ones stay
        losses = {k.removeprefix("train/").removeprefix("loss_"): v for k, v in metrics.items() if "loss" in k}
        first = [(name.removesuffix("_loss"), value) for name, value in losses.items()][:3]
        shown = " ".join(f"{name} {short_number(value, 3)}" for name, value in first)
        text = f"{min(epoch + 1, self.num_epochs)}/{self.num_epochs} {shown}"
        self._bar.update(self._task, description=text, completed=max(done, 0), total=total)

    def _tell(self, line: str) -> None:
        _log.info("%s", line)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class JsonProgress(BaseCallback):
    """One object a line: `{"event": "start" | "step" | "epoch" | "end", ...}`, NaN as null."""

    def __init__(self, config: Config, stream: TextIO) -> None:
        self._stream = stream

    def on_start(self, info: RunInfo) -> None:
        names = ("num_epochs", "steps_per_epoch", "batch_size", "effective_batch", "device", "precision", "parameters")
        facts = {name: getattr(info, name) for name in (*names, "resumed_epoch", "resumed_step")}
        self._put({"event": "start", **facts})
        _log.info("%s", arithmetic(info))

    def on_step(self, record: Record) -> None:
        self._record("step", record)

    def on_epoch(self, record: Record) -> None:
        self._record("epoch", record)

    def on_end(self, result: TrainResult | None, error: BaseException | None) -> None:
        if result is None:
            self._put({"event": "end", "state": "failed", "message": hide(str(error))})
            return
        names = ("state", "epochs", "step", "best", "best_epoch", "message")
        self._put({"event": "end", **{name: getattr(result, name) for name in names}})

    def _record(self, event: str, record: Record) -> None:
        if record.metrics:
            self._put({"event": event, "epoch": record.epoch, "step": record.step, **record.metrics})

    def _put(self, row: dict[str, object]) -> None:
        print(to_json(row), file=self._stream, flush=True)


def arithmetic(info: RunInfo) -> str:
    """The numbers that follow from the configuration, in one line."""
    accumulation = info.effective_batch // info.batch_size
    resumed = f", from step {info.resumed_step} on" if info.resumed_step else ""
    lengths = f"{counted(info.num_epochs, 'epoch')} x {counted(info.steps_per_epoch, 'step')}"
    if len(info.stages) > 1:
        lengths = " + ".join(f"{s.epochs} x {s.steps_per_epoch}" for s in info.stages) + " steps"
    return (
        f"{lengths} of {counted(info.effective_batch, 'picture')} "
        f"({info.batch_size} x {accumulation}), {info.parameters / 1e6:.2f} M parameters, "
        f"{info.device} {info.precision}{resumed}"
    )


def _at(value: float, epoch: int) -> str:
    """`0.7123@12`, with as many digits as ten characters have room for."""
    texts = (f"{value:.{n}g}@{epoch}" for n in range(4, 0, -1))
    return next((text for text in texts if len(text) <= 10), f"{value:.0e}@{epoch}")


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else short_number(value, 3)
