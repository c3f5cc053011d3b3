"""One Ray cluster for the whole room: a start costs seconds, and two on one machine disturb each other."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

if importlib.util.find_spec("ray") is None:
    collect_ignore_glob = ["test_ray*", "test_dashboard*"]


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """Ray looks at it once, when it is imported; workers inherit it, and find the tests' tasks by PYTHONPATH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_metrics_report_interval_ms", "500")  # gauges are seen soon
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, [TESTS.parent, TESTS, TESTS / "support"])))
        patch.delenv("RAY_ADDRESS", raising=False)
        if "ray" in sys.modules:  # a test module imports it at its top
            reset = importlib.import_module("ray._private.authentication_test_utils")
            reset.reset_auth_token_state()
        yield


@pytest.fixture(scope="session")
def cluster(_environment: None) -> Iterator[object]:
    """A local cluster, as a command would start it, of 2 CPUs; its `Cluster`."""
    from cabruca.config.load import config_from_dict
    from cabruca.distributed.cluster import cluster_for

    with cluster_for(config_from_dict({"distributed": {"num_workers": 2}})) as found:
        yield found
