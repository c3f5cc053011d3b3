"""What the study will cost, told before it begins and whenever it has changed; estimate.json keeps what was tried."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from dataclasses import asdict
from typing import Any

import psutil

from cabruca.config.redact import redact
from cabruca.config.study import Study
from cabruca.distributed.dry_epoch import dry_config, try_epoch
from cabruca.distributed.folder_sizes import bytes_of
from cabruca.distributed.study_run import cores_of, resources_of
from cabruca.preparing import TaskFactory
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_estimate import DryEpoch, estimate
from cabruca.tracking.study_state import StudyState
from cabruca.train.protocols import NOTICE

_log = logging.getLogger("cabruca.distributed")

UNMEASURED = ("output_dir", "experiment_name", "tracking", "distributed")
"""Sections of the configuration on which an epoch's cost does not depend."""


def foresee(study: Study, study_dir: StudyDir, state: StudyState, task: TaskFactory | None) -> None:
    """Say what is left to pay, unless that was said of this very study; a dry epoch where none of its kind was run.

    Raises:
        CabrucaError, TrainingDiverged: the base configuration does not run; the study does not fit on the disk.
    """
    done = sum(trial.ended and trial.retry_of is None for trial in state.trials.values())
    if done >= study.config.num_trials:
        return
    known = _known(study_dir)
    study_print, dry_print = _print_of(study.config.model_dump(mode="json")), _dry_print(study, study_dir)
    if known.get("study_print") == study_print and known.get("dry_print") == dry_print:
        return
    dry = _dry_of(known) if known.get("dry_print") == dry_print else None
    if dry is None:
        dry = try_epoch(study, study_dir, task, resources_of(study), cores_of(study))
    told = estimate(
        study,
        dry,
        shutil.disk_usage(study_dir.path).free,
        psutil.virtual_memory().total,
        done=done,
        used_bytes=bytes_of(study_dir.path) if state.trials else 0,
    )
    for line in told.lines():
        _log.info("%s", line, extra=NOTICE)
    facts = {**told.to_dict(), "dry": asdict(dry), "dry_print": dry_print, "study_print": study_print}
    write_atomic(study_dir.estimate, to_json(facts, indent=1) + "\n")


def _known(study_dir: StudyDir) -> dict[str, Any]:
    try:
        found = json.loads(study_dir.estimate.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _dry_of(known: dict[str, Any]) -> DryEpoch | None:
    try:
        dry = dict(known["dry"])
        metrics = {k: float("nan") if v is None else float(v) for k, v in dry.pop("metrics").items()}
        return DryEpoch(metrics=metrics, **dry)
    except (KeyError, TypeError, ValueError):
        return None


def _dry_print(study: Study, study_dir: StudyDir) -> str:
    """Of all that the dry epoch's cost depends on."""
    base = {k: v for k, v in dry_config(study, study_dir.path).to_dict().items() if k not in UNMEASURED}
    config = study.config
    return _print_of([redact(base), config.workers_per_trial, config.resources_per_trial.model_dump(mode="json")])


def _print_of(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]
