"""What is scraped, drawn and raised: names that are published, rules that fire when they should and not else."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cabruca.distributed.ray_metrics import ALWAYS, NAMES

MONITORING = Path(__file__).resolve().parents[2] / "cluster" / "monitoring"


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MONITORING / "grafana-dashboard.json").read_text())["panels"]
    return found


def promtool(*words: str, folder: Path | None = None) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    found = subprocess.run([program, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_the_dashboard_has_the_panels_that_are_wanted() -> None:
    titles = {panel["title"] for panel in panels()}
    wanted = {"Loss", "Monitored metric", "Images per second", "Memory of workers", "Trials by state"}
    assert wanted | {"Rung occupancy", "Failures", "Disk"} <= titles


def test_every_gauge_of_a_panel_or_rule_is_one_that_is_published() -> None:
    study = {f"cabruca_study_{name}" for name in ("trials", "best", "rung_trials")}
    known = {f"ray_{name}" for name in {*NAMES.values(), *ALWAYS, *study}}
    text = "\n".join(target["expr"] for panel in panels() for target in panel["targets"])
    text += (MONITORING / "alerts.yml").read_text()
    named = set(re.findall(r"ray_cabruca_\w+", text))
    assert len(named) >= 9
    assert named <= known


def overlapping(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Titles of panels of which one lies on a part of the other."""
    out = []
    for one, other in itertools.combinations(found, 2):
        a, b = one["gridPos"], other["gridPos"]
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        if not beside and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]:
            out.append((one["title"], other["title"]))
    return out


def test_panels_do_not_lie_on_one_another() -> None:
    found = panels()
    assert overlapping(found) == []
    assert max(panel["gridPos"]["x"] + panel["gridPos"]["w"] for panel in found) <= 24, "Grafana's columns"
    found[1]["gridPos"] = {**found[0]["gridPos"], "y": found[0]["gridPos"]["y"] + found[0]["gridPos"]["h"] - 1}
    assert (found[0]["title"], found[1]["title"]) in overlapping(found), "one row in common"


def test_prometheus_reads_its_files() -> None:
    assert "SUCCESS" in promtool("check", "config", str(MONITORING / "prometheus.yml"))


def test_the_compose_file_mounts_what_is_there_and_listens_here_alone() -> None:
    services = yaml.safe_load((MONITORING / "compose.yaml").read_text())["services"]
    mounts = [volume.split(":")[0] for service in services.values() for volume in service["volumes"]]
    for mount in mounts:
        if mount.startswith("./"):
            assert (MONITORING / mount).is_file(), mount
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    source = yaml.safe_load((MONITORING / "grafana-provisioning.yaml").read_text())["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
    # the head of the file says to write the password there
    assert services["grafana"]["env_file"] in (MONITORING.parents[1] / ".gitignore").read_text().splitlines()


RUN = 'ray_cabruca_step{run="plot",rank="0",study="",trial=""}'
TRIALS = 'ray_cabruca_study_trials{study="light",state="%s"}'
NODE = 'ray_node_disk_%s{ip="10.0.0.1"}'

CASES: dict[str, tuple[dict[str, str], int, str]] = {
    # name: series, minutes, the alert that fires
    "a run that stands still": ({RUN: "0+10x5 50x20"}, 18, "CabrucaNoProgress"),
    "a run that goes on": ({RUN: "0+10x30"}, 18, ""),
    "a run that has just begun": ({RUN: "5x6"}, 5, ""),
    "a run that ended": ({RUN: "0+10x5 stale"}, 18, ""),
    "trials that find no room": (
        {TRIALS % "waiting": "3x30", TRIALS % "running": "0x30"},
        20,
        "CabrucaStudyNoProgress",
    ),
    "trials that run for long": ({TRIALS % "waiting": "3x30", TRIALS % "running": "1x30"}, 20, ""),
    "a trial that failed": (
        {TRIALS % "failed": "0x10 1x20", TRIALS % "finished": "30x30"},
        12,
        "CabrucaTrialsFailed",
    ),
    "one that failed an hour ago": ({TRIALS % "failed": "1x80", TRIALS % "finished": "30x80"}, 70, ""),
    "many that failed": ({TRIALS % "failed": "3x30", TRIALS % "finished": "7x30"}, 15, "CabrucaManyTrialsFailed"),
    "a disk that fills up": ({NODE % "free": "5x30", NODE % "usage": "95x30"}, 10, "CabrucaDiskFillsUp"),
    "a disk with room": ({NODE % "free": "50x30", NODE % "usage": "50x30"}, 10, ""),
    "a node that is gone": ({'up{job="ray",instance="10.0.0.1:8080"}': "1x5 0x20"}, 12, "CabrucaNodeGone"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_raised(name: str, tmp_path: Path) -> None:
    series, minutes, wanted = CASES[name]
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    every = [rule["alert"] for rule in rules]
    assert wanted in ["", *every]
    checks = [
        {
            "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)',
            "eval_time": f"{minutes}m",
            "exp_samples": [{"labels": "{}", "value": 1 if alert == wanted else 0}],
        }
        for alert in every
    ]
    test = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": key, "values": value} for key, value in series.items()],
                "promql_expr_test": checks,
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", "test.yml", folder=tmp_path)
