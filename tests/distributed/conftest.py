"""One Ray cluster for the whole room: a start costs seconds, and two on one machine disturb each other."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before Ray is imported, which looks at them once; workers inherit them, and PYTHONPATH to find the tests' tasks.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
os.environ["RAY_metrics_report_interval_ms"] = "500"  # noqa: SIM112 (gauges are seen soon)
TESTS = Path(__file__).resolve().parents[1]
os.environ["PYTHONPATH"] = os.pathsep.join(map(str, [TESTS.parent, TESTS, TESTS / "support"]))
os.environ.pop("RAY_ADDRESS", None)
sys.path.insert(0, str(TESTS))

if importlib.util.find_spec("ray") is None:
    collect_ignore_glob = ["test_ray*", "test_dashboard*"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[object]:
    """A local cluster, as a command would start it, of 2 CPUs; its `Cluster`."""
    from cabruca.config.load import config_from_dict
    from cabruca.distributed.cluster import cluster_for

    with cluster_for(config_from_dict({"distributed": {"num_workers": 2}})) as found:
        yield found
