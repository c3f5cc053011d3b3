"""What the report reads beside the journal: autopsies and repeats; and what early stopping has saved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cabruca.config.study import Study
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_state import StudyState, TrialState

AUTOPSY = "autopsy.json"
"""In the run folder of a failed trial."""


def autopsies(study_dir: StudyDir, state: StudyState) -> list[tuple[TrialState, Mapping[str, Any]]]:
    """Every failed trial with what its autopsy says; the journal's reason where there is no file."""
    failed = [trial for trial in state.trials.values() if trial.state == "failed"]
    return [(trial, autopsy_of(study_dir, trial)) for trial in failed]


def autopsy_of(study_dir: StudyDir, trial: TrialState) -> Mapping[str, Any]:
    """The autopsy of one trial; its reason alone where there is no file."""
    found = _read(study_dir.trial_dir(trial.number).path / AUTOPSY)
    return found if isinstance(found, Mapping) else {"reason": trial.reason or "not known"}


def memory_peak(autopsy: Mapping[str, Any]) -> str:
    """For people: `1.20 GB of the process, 9.75 GB of the GPU`; empty where neither is known."""
    of = {"the process": autopsy.get("memory_peak_mb"), "the GPU": autopsy.get("gpu_memory_peak_mb")}
    return ", ".join(f"{mb / 1024:.2f} GB of {what}" for what, mb in of.items() if isinstance(mb, int | float))


def repeated(study_dir: StudyDir, state: StudyState, study: Study) -> list[dict[str, Any]]:
    """Every repeated trial: `trial`, `values` over the seeds, `mean`, `deviation`, `study_value`; best mean first."""
    found = _read(study_dir.repeats_json)
    entries = found.get("trials", []) if isinstance(found, Mapping) else []
    rows = [_repeat(entry, state, study) for entry in entries if isinstance(entry, Mapping) and "trial" in entry]
    sign = -1.0 if study.directions[0] == "maximize" else 1.0
    return sorted(rows, key=lambda row: (row["mean"] is None, sign * (row["mean"] or 0.0)))


def _repeat(entry: Mapping[str, Any], state: StudyState, study: Study) -> dict[str, Any]:
    trial = state.trials.get(int(entry["trial"]))
    best = None if trial is None else trial.best(study)
    values = [value for value in entry.get("values", []) if isinstance(value, int | float)]
    return {
        "trial": int(entry["trial"]),
        "values": values,
        "mean": entry.get("mean"),
        "deviation": entry.get("deviation"),
        "study_value": None if best is None else best.value,
    }


@dataclass(frozen=True)
class Saved:
    """What stopping early has spared.

    Attributes:
        trials: that have ended without a failure. run, asked: their epochs, done and without the scheduler's
            stops (what a trial left out by its own patience nobody has stopped).
        rungs: epoch of a rung -> trials that were stopped there.
    """

    trials: int
    run: int
    asked: int
    rungs: Mapping[int, int]

    @property
    def share(self) -> float:
        """Of the epochs, those that were not run."""
        return 1.0 - self.run / self.asked if self.asked else 0.0


def saved(study: Study, state: StudyState) -> Saved:
    """Of trials that have finished or were stopped."""
    ended = [trial for trial in state.trials.values() if trial.state in ("finished", "stopped")]
    rungs = [trial.rung for trial in ended if trial.state == "stopped" and trial.rung is not None]
    return Saved(
        trials=len(ended),
        run=sum(trial.epoch for trial in ended),
        asked=sum(study.max_epochs if trial.state == "stopped" else trial.epoch for trial in ended),
        rungs={rung: rungs.count(rung) for rung in sorted(set(rungs))},
    )


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
