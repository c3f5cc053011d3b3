"""What repeating the best trials came to: a row a trial, for repeats.json and for people."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cabruca.config.study import Study
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import read_status
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_state import Result, TrialState, best_of
from cabruca.words import counted


def are_left(rows: Sequence[Mapping[str, Any]], seeds: int) -> bool:
    """Whether a row of repeats.json lacks one of so many seeds; where there is no row, all are left."""
    return not rows or any(len(row["values"]) < seeds for row in rows)


def describe(row: Mapping[str, Any]) -> str:
    """For people: `trial 7: 0.512 +- 0.021 over 3 seeds (0.547 in the study)`."""
    if row["mean"] is None:
        return f"trial {row['trial']}: not repeated yet"
    spread = "" if row["deviation"] is None else f" +- {row['deviation']:.4g}"
    return (
        f"trial {row['trial']}: {row['mean']:.4g}{spread} over {counted(len(row['values']), 'seed')} "
        f"({row['study_value']:.4g} in the study)"
    )


def row_of(study: Study, study_dir: StudyDir, one: TrialState, seeds: int) -> dict[str, Any]:
    """What the finished repetitions of a trial come to, as repeats.json has it."""
    found: dict[int, float] = {}
    for seed in range(1, seeds + 1):
        run_dir = study_dir.repeat_dir(one.number, seed)
        if (read_status(run_dir.status) or {}).get("state") == "finished":
            best = best_of(results_of(run_dir), study.metrics, study.directions)
            if best is not None:
                found[study.base.training.seed + seed] = best.value
    values, own = list(found.values()), one.best(study)
    return {
        "trial": one.number,
        "seeds": list(found),
        "values": values,
        "mean": statistics.fmean(values) if values else None,
        "deviation": statistics.stdev(values) if len(values) > 1 else None,
        "study_value": None if own is None else own.value,
    }


def results_of(run_dir: RunDir) -> list[Result]:
    """A run's epochs, from its history."""
    found = []
    for line in run_dir.metrics.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "time/epoch_s" in row:
            metrics = {k: float(v) for k, v in row.items() if "/" in k and isinstance(v, int | float)}
            found.append(Result(row["epoch"], row["step"], metrics))
    return found
