"""Trials of two workers each: they stop early by asking, and everything they took is free afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from study_line import line_study, run, story

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.slow, pytest.mark.timeout(300)]


def test_nested_trials_are_stopped_early_and_give_everything_back(tmp_path: Path) -> None:
    import ray

    before = ray.cluster_resources()
    keys = {"num_trials": 4, "max_epochs": 3}
    study = line_study(tmp_path / "nested", workers_per_trial=2, **keys)
    assert run(study, dry=False).state == "finished"
    told = story(study)
    assert {t["ends"][-1][0] for t in told.values()} == {"finished", "stopped"}
    end = time.monotonic() + 20
    while ray.available_resources().get("CPU") != before["CPU"] and time.monotonic() < end:
        time.sleep(0.2)
    assert ray.available_resources().get("CPU") == before["CPU"]
    alive = [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
    assert alive == []
    flat = line_study(tmp_path / "flat", **keys)
    run(flat, dry=False)
    for number, trial in story(flat).items():
        assert trial["params"] == pytest.approx(told[number]["params"], rel=1e-6)
        assert trial["decided"] == told[number]["decided"]
        assert trial["values"] == pytest.approx(told[number]["values"], rel=1e-6)
