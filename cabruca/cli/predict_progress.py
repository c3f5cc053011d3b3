"""How far a prediction is: a bar on a terminal, a line now and then elsewhere, JSON objects where asked for."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from cabruca.predict.picture import Picture
from cabruca.tracking.short import duration
from cabruca.tracking.signals import SignalWatch

LINE_S = 15.0
"""Seconds between two lines where there is no terminal."""


class Teller:
    """A `Watcher` for the command line; a context: signals are its own inside.

    Args:
        quiet: no progress; what a person should know is said all the same. as_json: one object a line on stdout.
    """

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self._quiet, self._json = quiet, as_json
        self._signals = SignalWatch(on_second=lambda: None)
        self._began: dict[str, tuple[float, int]] = {}
        self._told = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Teller:
        self._signals.install()
        if not self._quiet and not self._json and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.restore()
        if self._bar is not None:
            self._bar.stop()

    @property
    def signal(self) -> int | None:
        """The number of the signal that came."""
        return self._signals.number

    def say(self, line: str) -> None:
        if self._json:
            self._emit({"event": "note", "message": line})
        elif self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:  # quiet too: what is said may cost crowns
            click.echo(line, err=True)

    def progress(self, picture: Picture, done_px: int, crowns: int) -> None:
        height, width = picture.grid_hw
        total = height * width
        now = time.monotonic()
        began, first = self._began.setdefault(picture.name, (now, done_px))
        left = (now - began) * (total - done_px) / (done_px - first) if done_px > first else float("inf")
        done = f"{_size(picture, done_px)} of {_size(picture, total)} {_unit(picture)}"
        text = f"{done}, {crowns} crowns, {duration(left)} left"
        if self._bar is not None:
            if self._task is None or self._bar.tasks[-1].description != Path(picture.name).name:
                self._task = self._bar.add_task(Path(picture.name).name, total=total, text="")
            self._bar.update(self._task, completed=done_px, text=text)
        elif (not self._quiet or self._json) and (now - self._told >= LINE_S or done_px == total):
            self._told = now
            if self._json:
                self._emit(_event(picture, done_px, crowns, left))
            else:
                click.echo(f"{Path(picture.name).name}: {text}", err=True)

    def stop_asked(self) -> bool:
        return self._signals.number is not None

    def _emit(self, event: dict[str, Any]) -> None:
        click.echo(json.dumps(event, allow_nan=False))


def _event(picture: Picture, done_px: int, crowns: int, left: float) -> dict[str, Any]:
    total = picture.grid_hw[0] * picture.grid_hw[1]
    hectares = None if picture.metres is None else done_px * picture.metres.area / 1e4
    eta = None if left == float("inf") else round(left, 1)
    return {"event": "progress", "image": picture.name, "done": done_px / total, "hectares": hectares,
            "crowns": crowns, "eta_s": eta}  # fmt: skip


def _size(picture: Picture, px: int) -> str:
    value = px / 1e6 if picture.metres is None else px * picture.metres.area / 1e4
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _unit(picture: Picture) -> str:
    return "Mpx" if picture.metres is None else "ha"


def _bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    return Progress(*columns, console=Console(stderr=True))
