"""Lengths of time, sizes and commands in words, as a study tells them."""

from __future__ import annotations

from cabruca.commands import command
from cabruca.config.study import Study
from cabruca.tracking.study_dir import StudyDir


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
