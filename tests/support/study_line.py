"""Studies of the line fit: made, run in this process on the room's cluster, or in a child that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ray_tasks import FineLine
from run_helpers import line_config

from cabruca.config.load import to_yaml
from cabruca.config.study import Study, load_study
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import events

SPACE = {"optimizer.lr": {"loguniform": [1e-4, 0.3]}, "optimizer.weight_decay": {"uniform": [0.0, 0.1]}}


def line_study(folder: Path, *, base: dict[str, Any] | None = None, **keys: Any) -> Study:
    """A study of 6 trials of up to 9 epochs each; `keys` change it, `base` its configuration (`line_config`'s way)."""
    settings = {"training__precision": "fp64", "tracking__system_metrics_s": 0, "training__save_frequency": 0}
    config = line_config(folder / "outputs", **{**settings, **(base or {})})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text(to_yaml(config.to_dict()))
    raw = {
        "name": "line",
        "config": str(folder / "base.yaml"),
        "metric": "val/mAP_50",
        "mode": "max",
        "num_trials": 6,
        "max_epochs": 9,
        "search_space": SPACE,
        "sampler": {"type": "tpe", "seed": 1},
        "scheduler": {"type": "asha", "grace_period": 1, "reduction_factor": 3},
        **keys,
    }
    (folder / "study.yaml").write_text(to_yaml(raw))
    return load_study(folder / "study.yaml")


def folder_of(study: Study) -> StudyDir:
    folder = StudyDir.of(study)
    return folder if folder.holds_study else StudyDir.create(study)


def run(study: Study, **options: Any) -> Any:
    """Run it here."""
    from cabruca.distributed.study import run_study

    return run_study(study, folder_of(study), quiet=True, trial=options.pop("trial", FineLine), **options)


def story(study: Study) -> dict[int, dict[str, Any]]:
    """What became of each trial: parameters, every epoch's value, decision, ends; nothing measured in seconds."""
    found: dict[int, dict[str, Any]] = {}
    for event in events(StudyDir.of(study).results):
        if event["event"] == "asked":
            assert event["trial"] not in found, "asked twice"
            found[event["trial"]] = {"params": event["params"], "values": {}, "decided": None, "ends": []}
        elif event["event"] == "result":
            values = found[event["trial"]]["values"]
            assert event["epoch"] not in values, "reported twice"
            values[event["epoch"]] = event["metrics"]["val/mAP_50"]
        elif event["event"] == "decided":
            found[event["trial"]]["decided"] = (event["epoch"], event["rung"])
        elif event["event"] == "ended":
            found[event["trial"]]["ends"].append((event["state"], event["epoch"], event["values"]))
    return found


def child(study: Study, *, sleep_s: float = 0.0, **options: Any) -> subprocess.Popen[str]:
    """A driver in a process of its own with a cluster of its own; `options` as `run`'s, plain values."""
    folder_of(study)
    command = [sys.executable, __file__, str(StudyDir.of(study).path), json.dumps(options)]
    environment = {**os.environ, "LINE_SLEEP_S": str(sleep_s)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _main() -> int:
    folder = StudyDir.open(sys.argv[1])
    return int(run(folder.load(), **json.loads(sys.argv[2])).exit_code)


if __name__ == "__main__":
    sys.exit(_main())
