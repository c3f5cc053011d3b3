"""A script: two raylets on this host, a line fit over both, and the second raylet killed in the middle.

`python ray_nodes.py config.json lost|elastic`; `elastic` gives the cluster a new node when the run has gone on.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster
from ray_line import epochs_done, until, worker_pids
from ray_tasks import FineLine

from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config
from cabruca.distributed.cluster import QUIET
from cabruca.distributed.ray_train import train_on_workers


def trouble(cluster: Cluster, second: Any, config: Config, grow: bool) -> None:
    """Wait for two workers at work, kill the second raylet, and later bring another."""
    run = Path(config.output_dir) / str(config.experiment_name)
    until(lambda: worker_pids(run) and epochs_done(run) >= 2)
    nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    print(f"nodes: {len(nodes)}", flush=True)
    raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:  # a machine takes its processes with it
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    print(f"killed after epoch {epochs_done(run)}", flush=True)
    if grow:
        until(lambda: worker_pids(run, 1))
        done = epochs_done(run)
        until(lambda: epochs_done(run) > done)
        ray._private.utils.set_sigterm_handler = lambda _: None  # only a main thread may have one
        cluster.add_node(num_cpus=1)
        print("a node came", flush=True)
        threading.Event().wait()  # Linux ends a raylet with the thread that started it


def main() -> int:
    config = config_from_dict(json.loads(Path(sys.argv[1]).read_text()))
    grow = sys.argv[2] == "elastic"
    os.environ.update(QUIET)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1 if grow else 2, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    settings = config.distributed.model_copy(update={"address": cluster.address})
    config = config.model_copy(update={"distributed": settings})
    thread = threading.Thread(target=trouble, args=(cluster, second, config, grow), daemon=True)
    thread.start()
    try:
        return train_on_workers(config, task_factory=FineLine).exit_code
    finally:
        thread.join(1)
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main())
