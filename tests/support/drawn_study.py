"""A study whose trials are drawn: parameters, curves and ends are known, nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cabruca.config.study import Study, load_study
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal
from cabruca.tracking.study_state import StudyState

METRIC = "val/mAP_50"

STUDY = """
name: {name}
config: base.yaml
metric: {metric}
mode: {mode}
num_trials: 8
max_epochs: 9
max_concurrent_trials: 2
search_space:
  optimizer.lr: {{loguniform: [5.0e-5, 2.0e-3]}}
  model.backbone: {{choice: [tf_efficientnet_lite0, mobilenetv3_large_100]}}
sampler: {{type: random, seed: 1}}
scheduler: {{type: {scheduler}, grace_period: 1, reduction_factor: 3}}
"""

LITE, MOBILE = "tf_efficientnet_lite0", "mobilenetv3_large_100"

TRIALS: tuple[tuple[float, str, list[float], dict[str, Any]], ...] = (
    (5e-4, LITE, [0.31, 0.42, 0.50, 0.55, 0.58, 0.60, 0.61, 0.615, 0.612], {"state": "finished"}),
    (1.1e-4, MOBILE, [0.12], {"state": "stopped", "rung": 1}),
    (1.9e-3, LITE, [0.35, 0.49, 0.57, 0.63, 0.66, 0.69, 0.70, 0.71, 0.7123], {"state": "finished"}),
    (9e-4, MOBILE, [0.30, 0.38, 0.41], {"state": "stopped", "rung": 3}),
    (1.8e-3, MOBILE, [0.22], {"state": "failed", "reason": "TrainingDiverged: 20 steps without finite gradients"}),
    (3e-4, LITE, [0.28, 0.35], {"state": "interrupted", "reason": "SIGTERM"}),
    (7e-4, LITE, [0.33, 0.47], {}),
)
"""lr, backbone, curve of the metric, how it ended ({}: it runs); a trial 7 is asked and waits."""


def write_study(folder: Path, **changes: str) -> Path:
    """study.yaml and base.yaml in `folder`; `changes` of name, metric, mode, scheduler."""
    folder.mkdir(parents=True, exist_ok=True)
    told = {"name": "drawn", "metric": METRIC, "mode": "max", "scheduler": "asha", **changes}
    (folder / "base.yaml").write_text(f"output_dir: {folder / 'outputs'}\ntraining: {{num_epochs: 50}}\n")
    (folder / "drawn.yaml").write_text(STUDY.format(**told))
    return folder / "drawn.yaml"


def drawn_study(folder: Path, **changes: str) -> tuple[Study, StudyDir]:
    """A study with the trials above in its journal."""
    study = load_study(write_study(folder, **changes))
    study_dir = StudyDir.create(study)
    write_trials(study, study_dir)
    return study, study_dir


def write_trials(study: Study, study_dir: StudyDir) -> StudyState:
    """The journal of the trials above."""
    journal = Journal(study_dir.results)
    for number, (lr, backbone, curve, end) in enumerate(TRIALS):
        journal.append({"event": "asked", "trial": number, "params": {"optimizer.lr": lr, "model.backbone": backbone}})
        journal.append({"event": "started", "trial": number})
        for epoch, value in enumerate(curve, 1):
            journal.append(result(number, epoch, {METRIC: value, "val/total_count_accuracy": 1.0 - 0.5 * value}))
        if end:
            _end(journal, number, len(curve), end)
    journal.append({"event": "asked", "trial": 7, "params": {"optimizer.lr": 2e-4, "model.backbone": MOBILE}})
    journal.close()
    return journal.state


def _end(journal: Journal, number: int, epoch: int, end: Mapping[str, Any]) -> None:
    if end["state"] == "stopped":
        journal.append(
            {"event": "decided", "trial": number, "epoch": epoch, "decision": "stop", "rung": end["rung"], "by": "asha"}
        )
    journal.append(
        {
            **{"event": "ended", "trial": number, "state": end["state"], "epoch": epoch, "values": None},
            "reason": end.get("reason", ""),
        }
    )


def result(number: int, epoch: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """The event of an epoch that took 20 s and 900 MB."""
    spent = {"elapsed_s": 20.0 * epoch, "memory_mb": 900.0}
    return {"event": "result", "trial": number, "epoch": epoch, "step": 8 * epoch, "metrics": dict(metrics), **spent}
