"""Two hosts with addresses and disks of their own: a study over both outlives a link that is cut, shortly or for good.

The second host does not see the first one's output folder: what it has trained reaches the study by storage_path alone.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

from ray_line import ended, until
from study_line import line_study, story
from two_hosts import set_link, start_ray, two_hosts, why_not

from cabruca.distributed.mirror import Mirror
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TRIALS, EPOCHS = 4, 8


@pytest.mark.parametrize("cut_s", [10.0, None], ids=["for_10_s", "for_good"])
def test_a_study_outlives_a_cut_link(tmp_path: Path, cut_s: float | None) -> None:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    shared = tmp_path / "shared"
    base = {"distributed__storage_path": str(shared), "distributed__address": "auto"}
    keys: dict[str, Any] = {"num_trials": TRIALS, "max_epochs": EPOCHS, "max_concurrent_trials": 2, "max_failures": 3}
    keys |= {"scheduler": {"type": "none"}, "resources_per_trial": {"cpu": 1, "gpu": 0}}
    study = line_study(tmp_path / "here", base=base, **keys)
    folder = StudyDir.create(study)
    with two_hosts(secrets.token_hex(32)) as (first, second):
        second.hidden.append(tmp_path / "here" / "outputs")
        for host in (first, second):
            host.environment["LINE_SLEEP_S"] = "0.3"  # trials have the environment of their node
        start_ray(first, second, tmp_path, cpus=1)
        script = str(Path(__file__).resolve().parents[1] / "support" / "study_line.py")
        driver = first.start(sys.executable, script, str(folder.path), json.dumps({"dry": False}))
        copies = shared / "studies" / "line" / "trials"

        def both_hosts() -> set[str]:
            found = {json.loads(path.read_text())["host"] for path in copies.glob("*/status.json")}
            busy = sum(len(trial.results) >= 2 for trial in read(folder.results).trials.values())
            return found if len(found) == 2 and busy >= 2 else set()

        try:
            assert until(both_hosts) == {"first", "second"}
            set_link(second, up=False)
            cut_at = time.time()
            if cut_s is not None:
                time.sleep(cut_s)
                set_link(second, up=True)
            code, output = ended(driver, 280)
        finally:
            if driver.poll() is None:
                psutil.Process(driver.pid).kill()
    assert code == 0, output
    told = story(study)
    assert {number: list(trial["values"]) for number, trial in told.items()} == {
        n: list(range(1, EPOCHS + 1)) for n in range(TRIALS)
    }
    hosts = {}
    for number in range(TRIALS):
        copy = RunDir(tmp_path / "copy" / f"trial_{number:04d}")
        Mirror(str(copies), copy.name).fetch(copy, weights=False)
        hosts[number] = json.loads(copy.status.read_text())
        assert hosts[number]["state"] == "finished"
        assert folder.trial_dir(number).metrics.is_file(), "the driver has gathered what ran elsewhere"
    if cut_s is None:
        after = [s for s in hosts.values() if s["host"] == "second" and s["heartbeat"] > cut_at + 1]
        assert not after, "nothing came from a host that was cut off"
