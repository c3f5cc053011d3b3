"""Gauges of trials and of their study on the node's endpoint, from a process that serves one trial after the other."""

from __future__ import annotations

import math
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from drawn_study import drawn_study
from ray_line import until

from cabruca.distributed.cluster import Cluster
from cabruca.distributed.ray_metrics import GaugeWatcher, RayMetrics
from cabruca.distributed.study_metrics import StudyMetrics
from cabruca.tracking.study_events import read
from cabruca.tracking.study_place import StudyPlace
from cabruca.train.protocols import Record

Labels = frozenset[tuple[str, str]]


def scrape() -> dict[tuple[str, Labels], float]:
    """(name, labels) -> value of every gauge of ours."""
    import ray

    node = next(node for node in ray.nodes() if node["Alive"])
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    found = [match for line in lines if (match := re.match(r"ray_(cabruca_\w+)\{(.*)\} (\S+)$", line))]
    return {(m[1], frozenset(re.findall(r'(\w+)="([^"]*)"', m[2]))): float(m[3]) for m in found}


def shown(name: str, **labels: str) -> Any:
    """The value of the gauge with these labels among others; None where there is none."""
    for (gauge, found), value in scrape().items():
        if gauge == name and labels.items() <= dict(found).items():
            return value
    return None


@pytest.fixture
def process(cluster: Cluster) -> Any:
    """An actor, as one that Ray Tune uses for several trials."""
    import ray

    @ray.remote(num_cpus=0)
    class Process:
        def show(self, trial: int, value: float, end: bool) -> None:
            from ray.util.metrics import Gauge

            place = StudyPlace("drawn", "id", trial, {})
            gauges = GaugeWatcher(RayMetrics(f"trial_{trial:04d}", 0, "val/mAP_50", Gauge, within=place))
            gauges.on_epoch(Record(1, 6, {"val/mAP_50": value}))
            if end:
                gauges.on_end(None, None)

    actor = Process.remote()
    yield actor
    ray.kill(actor)


def test_a_trial_s_gauges_have_its_label_and_end_with_it(process: Any) -> None:
    import ray

    ray.get(process.show.remote(3, 0.5, False))
    assert until(lambda: shown("cabruca_monitored", trial="3", study="drawn", run="trial_0003")) == 0.5
    ray.get(process.show.remote(3, 0.5, True))
    ray.get(process.show.remote(4, 0.25, False))
    assert until(lambda: shown("cabruca_monitored", trial="4")) == 0.25
    until(lambda: not math.isfinite(shown("cabruca_monitored", trial="3") or math.nan))


def test_the_study_s_gauges_are_there(cluster: Cluster, tmp_path: Path) -> None:
    from ray.util.metrics import Gauge

    study, study_dir = drawn_study(tmp_path)
    StudyMetrics(study, Gauge).on_event({"event": "ended"}, read(study_dir.results))
    assert until(lambda: shown("cabruca_study_trials", study="drawn", state="stopped")) == 2
    assert shown("cabruca_study_best", study="drawn") == pytest.approx(0.7123)
    assert shown("cabruca_study_rung_trials", rung="3") == 1
