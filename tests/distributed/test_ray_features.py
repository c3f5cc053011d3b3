"""What a run can do in one process it does on workers: stages, averages, trackers, profiles, weights, storage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ray_line import (
    alone,
    assert_same_weights,
    child,
    ended,
    epochs_done,
    many,
    on_workers,
    until,
    weights,
    worker_pids,
)
from ray_tasks import FineLine

from cabruca.config.schema import Config
from cabruca.distributed import group, ray_train
from cabruca.errors import RunError
from cabruca.preparing import Recipe
from cabruca.tracking.run_dir import RunDir
from cabruca.train import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "dotted",
    [
        {"training__stages": [{"tile_size": 64, "epochs": 1, "lr": 0.02}, {"tile_size": 128, "epochs": 2}]},
        {"training__ema_decay": 0.9, "training__unfreeze": [{"epoch": 1, "part": "backbone"}]},
        {"training__gradient_accumulation_steps": 3, "scheduler__type": "onecycle"},
    ],
    ids=["stages", "average_and_thaw", "accumulation"],
)
def test_it_learns_the_same(tmp_path: Path, dotted: dict[str, Any]) -> None:
    config = many(tmp_path, **dotted)
    on_workers(config)
    alone(config)
    for which in ("latest", "best"):
        assert_same_weights(weights(config, which=which), weights(config, "alone", which))


@pytest.mark.usefixtures("cluster")
def test_trackers_and_profile_are_written_by_rank_0(tmp_path: Path) -> None:
    import mlflow

    config = many(
        tmp_path,
        tracking__tensorboard=True,
        tracking__mlflow=True,
        tracking__system_metrics_s=0.5,
        training__profile=True,
        training__profile_batches=[2, 4],
    )
    on_workers(config)
    run = tmp_path / "many"
    assert len(list((run / "tensorboard").rglob("events*"))) >= 1
    assert {p.name for p in (run / "profile").iterdir()} == {"trace.json", "operators.txt"}
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "cabruca"]
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "many"
    assert found.info.status == "FINISHED"
    assert len(client.get_metric_history(found.info.run_id, "val/mAP_50")) == 3
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all("system/ram_percent" in row for row in rows if "time/epoch_s" in row)


@pytest.mark.usefixtures("cluster")
def test_a_new_run_begins_with_the_weights_of_a_file(tmp_path: Path) -> None:
    first = many(tmp_path, training__num_epochs=1)
    alone(first)
    source = str(tmp_path / "alone" / "checkpoints" / "checkpoint_latest.pth")
    config = many(tmp_path, training__num_epochs=1)
    on_workers(config, init_from=source)
    again = many(tmp_path / "other", training__num_epochs=1)
    alone(again, init_from=source)
    assert_same_weights(weights(config), weights(again, "alone"))
    assert (tmp_path / "many" / "pretrained_report.json").is_file()


@pytest.mark.usefixtures("cluster")
def test_workers_that_do_not_start_end_the_run_in_finite_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else took the free CPUs after they were counted."""
    monkeypatch.setattr(group, "check_fit", lambda *_, **__: None)
    config = many(tmp_path, 4, distributed__start_timeout_s=3)
    with pytest.raises(RunError, match=r"the workers did not start within distributed.start_timeout_s 3 s .* raise it"):
        on_workers(config)
    assert json.loads((tmp_path / "many" / "status.json").read_text())["state"] == "failed"
    on_workers(many(tmp_path), resume=None)  # a run that left nothing does not hold its folder


def test_a_run_whose_folder_is_lost_goes_on_from_the_shared_storage(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    config = many(tmp_path / "here", training__num_epochs=6, distributed__storage_path=str(shared))
    run = tmp_path / "here" / "many"
    driver = child(config, sleep_s=0.1)
    until(lambda: epochs_done(run) >= 3)
    pids = worker_pids(run)
    assert pids is not None
    driver.kill()
    ended(driver)
    import psutil

    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    assert checkpoint.is_intact(shared / "many" / "checkpoints" / "checkpoint_latest.pth")
    shutil.rmtree(run)
    code, output = ended(child(config, "auto"))
    assert code == 0, output
    assert "fetched the run from" in output
    calm = many(tmp_path, training__num_epochs=6)
    alone(calm)
    assert_same_weights(weights(config), weights(calm, "alone"))
    assert json.loads((shared / "many" / "status.json").read_text())["state"] == "finished"
    assert {p.name for p in shared.iterdir()} == {"many"}
    code, output = ended(child(config))
    assert code != 0
    assert "already holds a run" in output


@pytest.mark.usefixtures("cluster")
def test_the_test_at_the_end_is_in_the_shared_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver measures it after the workers are gone, also when it is made up for later."""

    def measure(run_dir: RunDir, config: Config, quiet: bool) -> None:
        (run_dir.test / "pictures").mkdir(parents=True)
        (run_dir.test / "metrics.json").write_text('{"mAP_50": 0.5}')
        (run_dir.test / "pictures" / "test_1.png").write_bytes(b"png")
        with run_dir.log.open("a") as log:
            log.write("tested\n")

    monkeypatch.setattr(ray_train, "recipe_of", lambda _: Recipe(FineLine, lambda _: (), measure))
    shared = tmp_path / "shared"
    config = many(tmp_path / "here", training__num_epochs=1, distributed__storage_path=str(shared))
    for resume in (None, "auto"):
        on_workers(config, resume=resume)
        run, copy = tmp_path / "here" / "many", shared / "many"
        assert (copy / "test" / "metrics.json").read_text() == '{"mAP_50": 0.5}'
        assert (copy / "test" / "pictures" / "test_1.png").read_bytes() == b"png"
        assert (copy / "train.log").read_text() == (run / "train.log").read_text()
        assert "tested" in (copy / "train.log").read_text()
        for folder in (run, copy):
            shutil.rmtree(folder / "test")
