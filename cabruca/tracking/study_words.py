"""Lengths of time, sizes and commands in words, as a study tells them."""

from __future__ import annotations

import math

from cabruca.commands import command
from cabruca.config.study import Study
from cabruca.tracking.study_dir import StudyDir

TIME_IS_UP = "the time budget is used up"
DISK_IS_FULL = "the disk budget is used up"
ALL_FAIL = "every trial fails"
"""Why a study stopped, as its message begins: to go on takes more than the name."""

EXCHANGED = (
    "pbt changed parameters and weights on the way: best_config.yaml has the parameters that the trial began with, and "
    "does not repeat its numbers; repeat says what they are worth"
)
"""Of the winner of a study whose trials take over from each other."""


def duration(seconds: float) -> str:
    """`2 h 05 min`, `12 min`, `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 90 else f"{minutes} min"


def size(count: float) -> str:
    """Bytes for people: `1.5 GB` (10^9 bytes)."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def go_on_command(study: Study, folder: StudyDir, message: str) -> str:
    """What goes on with a study that stopped with that message; with twice the budget where that was used up."""
    words: list[str] = []
    if message.startswith(TIME_IS_UP) and study.config.time_budget_s is not None:
        words = ["--time-budget", f"{math.ceil(2 * study.config.time_budget_s)}"]
    elif message.startswith(DISK_IS_FULL) and study.config.disk_budget_bytes is not None:
        words = ["--set", f"study.disk_budget={2 * study.config.disk_budget_bytes}"]
    elif message.startswith(ALL_FAIL):
        words = ["--retry-failed"]
    return command("tune", "resume", folder.path, *words)


def winner_command(study: Study, folder: StudyDir) -> str:
    """What trains best_config.yaml again, to the trial's own numbers.

    With as many compute threads as a trial on the CPU had: another number adds up in another order, and the last bits
    of a sum decide between proposals.
    """
    workers = study.config.workers_per_trial
    words = command("train", "--config", folder.best_config, *(["--workers", str(workers)] if workers > 1 else []))
    if study.config.resources_per_trial.gpu or workers > 1:
        return words
    return f"OMP_NUM_THREADS={max(1, int(study.config.resources_per_trial.cpu))} {words}"
