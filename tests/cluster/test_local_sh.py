"""local.sh for real: two raylets, a training and a study over both, the second killed in the middle, a job handed over.

The network is the small light one, on a drawn farm: what is proved is that the commands of cluster/README.md work.
"""

from __future__ import annotations

import json
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from drawn_farm import write_farm

pytest.importorskip("ray")

from farm_file import farm_file
from ray_line import ended, epochs_done, until, worker_pids
from two_nodes import LOCAL, Nodes, two_nodes

from cabruca.tracking.study_events import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with two_nodes(tmp_path / "cluster") as found:
        yield found


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of the small network on a drawn farm."""
    return farm_file(write_farm(tmp_path / "farm"), tmp_path / "outputs", tmp_path / "farm.yaml")


def test_a_training_over_both_outlives_the_second(nodes: Nodes, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "both"
    wanted = ["--set", "distributed.resources_per_worker={CPU: 1}", "--set", "distributed.placement_strategy=SPREAD"]
    driver = nodes.cabruca(
        "train", "--config", str(config), "--experiment-name", "both", "--workers", "2", "--epochs", "8",
        "--set", "distributed.start_timeout_s=20", *wanted,
    )  # fmt: skip
    pids = until(lambda: worker_pids(run) if epochs_done(run) >= 2 else None, 200)
    here, there = nodes.processes("head"), nodes.processes("second")
    assert {pid in here for pid in pids} == {pid in there for pid in pids} == {True, False}, "one worker on each"
    nodes.kill("second")
    done = epochs_done(run)
    assert done < 8
    code, output = ended(driver, 280)
    assert code == 0, output
    assert re.search(r"going on after epoch \d+, step \d+ with 2 workers", output), output
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows if "time/epoch_s" in row] == list(range(1, 9))


def test_a_study_over_both_outlives_the_second(nodes: Nodes, config: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    raw = {
        "name": "both",
        "config": str(config),
        "metric": "val/total_loss",
        "mode": "min",
        "num_trials": 4,
        "max_epochs": 4,
        "max_concurrent_trials": 2,
        "resources_per_trial": {"cpu": 2, "gpu": 0},  # a node has 2: one trial on each
        "search_space": {"optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
        "scheduler": {"type": "none"},
        "max_failures": 2,
    }
    study.write_text(yaml.safe_dump(raw))
    folder = tmp_path / "outputs" / "studies" / "both"
    driver = nodes.cabruca("tune", "--study", str(study))

    def seated() -> dict[int, int] | None:
        """Trial -> process, when two are at work and have told an epoch."""
        state = read(folder.joinpath("results.jsonl")) if folder.joinpath("results.jsonl").is_file() else None
        busy = [t.number for t in state.trials.values() if not t.ended and t.results] if state else []
        if len(busy) < 2:
            return None
        statuses = [folder / "trials" / f"trial_{number:04d}" / "status.json" for number in busy]
        return {n: json.loads(s.read_text())["pid"] for n, s in zip(busy, statuses, strict=True)}

    found = until(seated, 200)
    there = nodes.processes("second")
    assert sum(pid in there for pid in found.values()) == 1, "one trial on each"
    nodes.kill("second")
    code, output = ended(driver, 280)
    assert code == 0, output
    state = read(folder / "results.jsonl")
    assert {trial.state for trial in state.trials.values()} == {"finished"}
    assert len(state.trials) == 4
    for trial in state.trials.values():
        assert [result.epoch for result in trial.results] == [1, 2, 3, 4], "every epoch once"


def test_a_job_is_handed_over_with_the_token_and_followed(nodes: Nodes, config: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    nodes.environment["CABRUCA_OUTPUT_DIR"] = str(outputs)
    nodes.environment["CABRUCA_JOB_ID"] = "job_train"
    script = str(LOCAL.with_name("ray-job.sh"))
    said = nodes.run(script, "train", "--config", str(config), "--experiment-name", "job", "--workers", "2")
    assert "Job 'job_train' succeeded" in said, said
    assert re.search(r"epoch +2", said), said
    assert json.loads((outputs / "job" / "status.json").read_text())["state"] == "finished"
    url = nodes.environment["RAY_API_SERVER_ADDRESS"]
    assert "job_train" in _fetch(f"{url}/api/jobs/", (nodes.folder / "token").read_text())
    with pytest.raises(urllib.error.HTTPError) as refused:
        _fetch(f"{url}/api/jobs/", "0" * 64)
    assert refused.value.code in (401, 403)
    nodes.environment["RAY_AUTH_TOKEN"] = "0" * 64
    said = nodes.run(script, "train", "--config", str(config), code=1)
    assert "token" in said.lower(), said


def _fetch(url: str, token: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def test_everything_is_on_the_loopback_and_ends_with_stop(tmp_path: Path) -> None:
    with two_nodes(tmp_path / "cluster") as nodes:
        token = nodes.folder / "token"
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        pids = nodes.processes("head") | nodes.processes("second")
        listening = [c for c in psutil.net_connections("inet") if c.pid in pids and c.status == psutil.CONN_LISTEN]
        assert len(listening) > 10
        assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
        assert "a cluster is there already" in nodes.run(str(LOCAL), "start", code=2)
        assert nodes.run(str(LOCAL), "status").count(" 1 node_") == 2
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert not token.exists()
