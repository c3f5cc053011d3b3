"""The real Prometheus beside a real study and a real training: every panel's expression has data."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from drawn_farm import write_farm
from test_monitoring import MONITORING, panels

pytest.importorskip("ray")

from farm_file import farm_file
from ray_line import ended, until
from two_nodes import free_ports, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NO_DATA_HERE = {"ray_cabruca_memory_cuda_mb": "no GPU", "ALERTS": "nothing is wrong"}


@pytest.fixture
def prometheus() -> str:
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    return found


def query(url: str, expression: str) -> list[Any]:
    for name in ("$run", "$study"):
        expression = expression.replace(name, ".*")
    answer = urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}", timeout=60)
    found = json.load(answer)
    assert found["status"] == "success", found
    return [sample for sample in found["data"]["result"] if sample["value"][1] != "NaN"]


@pytest.fixture
def server(prometheus: str, tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """Prometheus on a free port of the loopback, with our files, scraping two nodes every second.

    It reads the nodes' addresses from their own session's folder: the file in /tmp/ray is a link that the newest of all
    clusters of this machine draws to itself.
    """
    with two_nodes(tmp_path / "cluster") as nodes:
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        (discovery,) = config["scrape_configs"][0]["file_sd_configs"]
        (link,) = discovery["files"]
        discovery["files"] = [str(nodes.session() / Path(link).name)]
        shutil.copy(MONITORING / "alerts.yml", tmp_path)
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        (port,) = free_ports(1)
        words = [
            prometheus,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (tmp_path / "prometheus.log").open("w") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            own = int(nodes.environment["CABRUCA_METRICS_PORT"])
            until(lambda: {f"127.0.0.1:{own}", f"127.0.0.1:{own + 1}"} <= _up(url))
            yield url, nodes
        finally:
            process.terminate()
            process.wait(20)


def _up(url: str) -> set[str]:
    """Addresses that answer: the two nodes', and those that the head has beside its own."""
    try:
        return {sample["metric"]["instance"] for sample in query(url, 'up{job="ray"} == 1')}
    except OSError:
        return set()


def test_every_panel_has_data(server: tuple[str, Any], tmp_path: Path) -> None:
    url, nodes = server
    config = farm_file(write_farm(tmp_path / "farm"), tmp_path / "outputs", tmp_path / "farm.yaml")
    study = {
        "name": "shown",
        "config": str(config),
        "metric": "val/total_loss",
        "mode": "min",
        "num_trials": 3,
        "max_epochs": 3,
        "max_concurrent_trials": 1,
        "resources_per_trial": {"cpu": 1, "gpu": 0},
        "search_space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
        "scheduler": {"type": "asha", "grace_period": 1, "reduction_factor": 3},
        "sampler": {"type": "random", "seed": 0},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    train = nodes.cabruca(
        "train", "--config", str(config), "--experiment-name", "shown", "--workers", "2", "--epochs", "12",
        "--set", "distributed.resources_per_worker={CPU: 1}", "--set", "training.log_interval=1",
    )  # fmt: skip
    tune = nodes.cabruca("tune", "--study", str(tmp_path / "study.yaml"))
    wanted = {target["expr"] for panel in panels() for target in panel["targets"]}
    wanted = {expr for expr in wanted if not any(name in expr for name in NO_DATA_HERE)}
    missing = set(wanted)

    def all_seen() -> bool:
        missing.difference_update({expr for expr in missing if query(url, expr)})
        return not missing or (train.poll() is not None and tune.poll() is not None)

    until(all_seen, 250)
    assert ended(tune)[0] == 0
    assert ended(train)[0] == 0
    assert not missing
    assert {sample["metric"]["rank"] for sample in query(url, "max_over_time(ray_cabruca_memory_rss_mb[10m])")} >= {
        "0",
        "1",
    }
    assert not query(url, 'ALERTS{alertname=~"Cabruca.*",alertstate="firing"}')
