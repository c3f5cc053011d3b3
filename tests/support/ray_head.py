"""A script: the head of a cluster of 2 CPUs that others connect to. `python ray_head.py CLIENT_PORT` says its address,
and ends when its input does."""

from __future__ import annotations

import os
import sys

from ray.cluster_utils import Cluster

from cabruca.distributed.cluster import QUIET


def main() -> None:
    os.environ.update(QUIET)
    own = {"num_cpus": 2, "include_dashboard": False, "ray_client_server_port": int(sys.argv[1])}
    cluster = Cluster(initialize_head=True, head_node_args=own)
    print(f"address {cluster.address}", flush=True)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main()
