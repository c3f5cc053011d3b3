"""Studies of the line fit: made, run in this process on the room's cluster, or in a child that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray_tasks import FineLine
from run_helpers import line_config

from cabruca.config.load import to_yaml
from cabruca.config.study import Study, load_study
from cabruca.distributed.cluster import set_environment
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
    """A driver in a process of its own with a cluster of its own; `options` as `run`'s, plain values.

    `cpus=N`: the cluster has N CPUs, whatever the machine has, and the last line printed is JSON: what was taken of
    it at most, and what `left_behind` found.
    """
    folder_of(study)
    command = [sys.executable, __file__, str(StudyDir.of(study).path), json.dumps(options)]
    environment = {**os.environ, "LINE_SLEEP_S": str(sleep_s)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said_at_last(output: str) -> dict[str, Any]:
    """What a child with `cpus` printed at its end; Ray may have said more after it."""
    found: dict[str, Any] = json.loads([line for line in output.splitlines() if line.startswith('{"most_cpus"')][-1])
    return found


def _main() -> int:
    folder, options = StudyDir.open(sys.argv[1]), json.loads(sys.argv[2])
    cpus = options.pop("cpus", None)
    if cpus is None:
        return int(run(folder.load(), **options).exit_code)
    with small_cluster(folder.load(), cpus) as ray, watched_cpus(ray, cpus) as most:
        code = int(run(folder.load(), **options).exit_code)
        print(json.dumps({"most_cpus": most[0], **left_behind(ray, cpus)}), flush=True)
    return code


@contextmanager
def small_cluster(study: Study, cpus: int) -> Iterator[Any]:
    """A cluster of so many CPUs, as `cluster_for` would start it; without a dashboard."""
    set_environment(study.base)
    import ray

    here = {"dashboard_host": "127.0.0.1", "_node_ip_address": "127.0.0.1"}
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, **here)
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def watched_cpus(ray: Any, cpus: int) -> Iterator[list[float]]:
    """The most CPUs that were taken at a time."""
    most, done = [0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            most[0] = max(most[0], cpus - ray.available_resources().get("CPU", 0.0))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def command_of(process: psutil.Process) -> str:
    """Of a process that may be dying."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def left_behind(ray: Any, cpus: float, patience_s: float = 30.0) -> dict[str, Any]:
    """What is still taken of a cluster after a study: CPUs, placement groups, processes of workers and trials."""

    def look() -> dict[str, Any]:
        groups = ray.util.placement_group_table().values()
        lines = map(command_of, psutil.Process().children(recursive=True))
        return {
            "cpus": cpus - ray.available_resources().get("CPU", 0.0),
            "groups": [group["state"] for group in groups if group["state"] != "REMOVED"],
            "processes": [line for line in lines if "RayTrainWorker" in line or "ImplicitFunc" in line],
        }

    end = time.monotonic() + patience_s
    while any((found := look()).values()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


if __name__ == "__main__":
    sys.exit(_main())
