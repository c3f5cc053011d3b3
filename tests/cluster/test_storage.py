"""storage_path on a shared folder and on a server that speaks S3: what lost its own disk goes on from there."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")
pytest.importorskip("moto.server", reason="moto[server] belongs to the extra dev")

from ray_line import alone, assert_same_weights, child, ended, epochs_done, many, until, weights, worker_pids
from study_line import child as study_child
from study_line import line_study, story

from cabruca.distributed.mirror import Mirror
from cabruca.distributed.study_mirror import look_into_storage
from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import read
from cabruca.train import checkpoint
from cabruca.tuning import begin

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [TESTS.parent, TESTS, TESTS / "support"])))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A storage_path that every machine would reach."""
    if request.param == "folder":
        yield str(tmp_path / "shared")
        return
    from moto.server import ThreadedMotoServer
    from pyarrow.fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    S3FileSystem(allow_bucket_creation=True, endpoint_override=f"http://127.0.0.1:{port}").create_dir("cabruca")
    try:
        yield "s3://cabruca/runs"
    finally:
        server.stop()


def test_a_run_goes_on_from_there(place: str, tmp_path: Path) -> None:
    config = many(tmp_path / "here", training__num_epochs=6, distributed__storage_path=place)
    run = tmp_path / "here" / "many"
    driver = child(config, sleep_s=0.1)
    until(lambda: epochs_done(run) >= 3)
    pids = worker_pids(run) or []
    driver.kill()
    ended(driver)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    shutil.rmtree(run)
    code, output = ended(child(config, "auto"))
    assert code == 0, output
    assert "fetched the run from" in output
    calm = many(tmp_path, training__num_epochs=6)
    alone(calm)
    assert_same_weights(weights(config), weights(calm, "alone"))
    copy = RunDir(tmp_path / "copy" / "many")
    assert Mirror(place, "many").fetch(copy)
    assert json.loads(copy.status.read_text())["state"] == "finished"
    assert checkpoint.is_intact(copy.latest)


def test_a_study_goes_on_from_there(place: str, tmp_path: Path) -> None:
    """The driver is killed and its disk is gone: what is finished stays, what was under way goes on, nothing twice."""
    base = {"distributed__storage_path": place, "distributed__dashboard": False}
    keys = {"num_trials": 4, "max_epochs": 6, "max_concurrent_trials": 2, "scheduler": {"type": "none"}}
    study = line_study(tmp_path / "here", base=base, keep_checkpoints=1, **keys)
    folder = StudyDir.of(study)
    driver = study_child(study, sleep_s=0.15)

    def half_way() -> Any:
        """One has ended, and another was begun after it: the end is in the copy by then, which is made before that."""
        state = read(folder.results)
        ended_ones = sum(t.ended for t in state.trials.values())
        under_way = any(len(t.results) >= 2 and not t.ended for t in state.trials.values())
        return state if 1 <= ended_ones <= len(state.trials) - 2 and under_way else None

    before = until(half_way)
    pids = [json.loads(path.read_text())["pid"] for path in folder.trials.glob("*/status.json")]
    driver.kill()
    ended(driver)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    shutil.rmtree(tmp_path / "here" / "outputs")
    with pytest.raises(RunError, match=r"already holds a study; go on with it \(--resume\)"):
        begin(tmp_path / "here" / "study.yaml")
    look_into_storage(study, folder, resume=True)
    fetched = read(folder.results)
    assert {n for n, t in fetched.trials.items() if t.ended} >= {n for n, t in before.trials.items() if t.ended}
    code, output = ended(study_child(study, sleep_s=0.0))
    assert code == 0, output
    told = story(study)  # refuses what was asked or reported twice
    assert {number: list(trial["values"]) for number, trial in told.items()} == {
        n: [1, 2, 3, 4, 5, 6] for n in range(4)
    }
    for number, trial in before.trials.items():
        assert told[number]["params"] == trial.params
    went_on = [n for n, t in before.trials.items() if not t.ended and len(t.results) >= 2]
    for number in went_on:
        assert ", from step " in folder.trial_dir(number).log.read_text(), "not from its first epoch"
    best = read(folder.results).best(study)
    assert best is not None
    for number in range(4):
        copy = RunDir(tmp_path / "copy" / f"trial_{number:04d}")
        Mirror(f"{place}/studies/line/trials", copy.name).fetch(copy)
        assert json.loads(copy.status.read_text())["state"] == "finished"
        assert copy.latest.is_file() == (number == best.number), "losers' weights go there, too"
