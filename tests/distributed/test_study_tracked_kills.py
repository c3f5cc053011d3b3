"""Driver and trial killed by their process ids while every tracker is on: still one record a trial, of that trial."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from ray_line import ended, until
from run_helpers import rows
from study_line import child, line_study
from tracker_reading import mlflow_points, mlflow_runs, sqlite_uri, wandb_points, wandb_records

from cabruca.config.study import Study
from cabruca.tracking.status import read_status
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

METRIC = "val/mAP_50"

TRACKING = {"tracking__tensorboard": True, "tracking__mlflow": True, "tracking__wandb": True}

TRIALS = 4


def results(study: Study) -> int:
    return sum(event["event"] == "result" for event in events(StudyDir.of(study).results))


def running(study: Study) -> list[int]:
    """Processes of trials at work."""
    found = [read_status(path) or {} for path in StudyDir.of(study).trials.glob("trial_*/status.json")]
    return [int(s["pid"]) for s in found if s.get("state") == "running" and psutil.pid_exists(s["pid"])]


def test_runs_are_trials_whatever_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    base = {**TRACKING, "distributed__dashboard": False}
    study = line_study(tmp_path, base=base, num_trials=TRIALS, max_epochs=6, scheduler={"type": "none"})
    driver = child(study, sleep_s=0.05, dry=False)
    until(lambda: results(study) >= 3)
    os.kill(until(lambda: running(study))[0], signal.SIGKILL)
    until(lambda: results(study) >= 9)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    code, output = ended(child(study, sleep_s=0.05, dry=False))
    assert code == 0, output
    told = json.loads((StudyDir.of(study).path / "trackers.json").read_text())["runs"]
    assert told == {name: {"there": TRIALS, "trials": TRIALS} for name in ("mlflow", "wandb", "tensorboard")}
    uri = sqlite_uri(Path(study.base.output_dir))
    parent, *children = mlflow_runs(uri)
    assert [run.info.run_name for run in (parent, *children)] == ["line", *(f"trial_000{k}" for k in range(TRIALS))]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    for number, run in enumerate(children):
        run_dir = StudyDir.of(study).trial_dir(number)
        own = {(row["step"], round(row[METRIC], 6)) for row in rows(run_dir.metrics) if METRIC in row}
        assert len(own) == 6
        files = sorted(run_dir.path.glob("wandb/offline-run-*/*.wandb"))
        ids = {r.run.run_id for file in files for r in wandb_records(file) if r.HasField("run") and r.run.run_id}
        assert len(ids) == 1
        by_wandb = {(s, round(v, 6)) for file in files for s, v in wandb_points(file).get(METRIC, [])}
        by_mlflow = {(s, round(v, 6)) for s, v in mlflow_points(uri, run, METRIC)}
        assert by_mlflow == own, "numbers of another trial, of an epoch that was done differently, or of one not sent"
        assert by_wandb <= own, "what W&B's own process had not written yet is lost with it"
