"""Whatever is killed, by its process id: the run ends with the weights of the run that nothing happened to."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import psutil
import pytest
from ray_line import alone, assert_same_weights, child, ended, epochs_done, many, until, weights, worker_pids
from run_helpers import rows

from cabruca.config.schema import Config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

EPOCHS = 8


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = many(tmp_path_factory.mktemp("undisturbed"), training__num_epochs=EPOCHS)
    alone(config)
    return config


def assert_ends_as(undisturbed: Config, config: Config) -> None:
    assert_same_weights(weights(config), weights(undisturbed, "alone"))
    run = Path(config.output_dir) / "many"
    status = json.loads((run / "status.json").read_text())
    assert (status["state"], status["epoch"]) == ("finished", EPOCHS)
    epochs = [row["epoch"] for row in rows(run / "metrics.jsonl") if "time/epoch_s" in row]
    assert epochs == list(range(1, EPOCHS + 1)), "every epoch stands in the history once"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker(tmp_path: Path, undisturbed: Config, rank: int) -> None:
    config = many(tmp_path, training__num_epochs=EPOCHS)
    run = tmp_path / "many"
    driver = child(config, sleep_s=0.1)
    pids = until(lambda: epochs_done(run) >= 2 and worker_pids(run))
    os.kill(pids[rank], signal.SIGKILL)
    code, output = ended(driver)
    assert code == 0, output
    assert re.search(r"going on after epoch \d+, step \d+ with 2 workers \(attempt 2\)", output), output
    assert worker_pids(run, 1) != pids
    assert_ends_as(undisturbed, config)


def test_a_killed_driver_and_resume_auto(tmp_path: Path, undisturbed: Config) -> None:
    config = many(tmp_path, training__num_epochs=EPOCHS)
    run = tmp_path / "many"
    driver = child(config, sleep_s=0.1)
    until(lambda: epochs_done(run) >= 2)
    pids = worker_pids(run) or []
    driver.kill()
    ended(driver)
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids))  # nothing is left behind
    done = epochs_done(run)
    assert done < EPOCHS
    code, output = ended(child(config, "auto"))
    assert code == 0, output
    assert re.search(r"going on after epoch \d+, step \d+, from ", output), output
    assert_ends_as(undisturbed, config)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_driver_that_is_asked_to_stop(tmp_path: Path, undisturbed: Config, number: int, code: int) -> None:
    config = many(tmp_path, training__num_epochs=EPOCHS)
    run = tmp_path / "many"
    driver = child(config, sleep_s=0.1)
    until(lambda: epochs_done(run) >= 2)
    driver.send_signal(number)
    found, output = ended(driver)
    assert found == code, output
    assert "interrupted; go on with:" in output
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    found, output = ended(child(config, "auto"))
    assert found == 0, output
    assert_ends_as(undisturbed, config)


def test_a_killed_node(tmp_path: Path, undisturbed: Config) -> None:
    """Two raylets, a worker on each; the second raylet is killed and its worker comes back on the first."""
    settings = {"distributed__placement_strategy": "SPREAD", "distributed__start_timeout_s": 15}
    config = many(tmp_path, training__num_epochs=EPOCHS, **settings)
    code, output = ended(child(config, "lost", script="ray_nodes.py", sleep_s=0.2))
    assert code == 0, output
    assert "nodes: 2" in output
    assert re.search(r"killed after epoch [2-6]\n", output), output
    assert re.search(r"going on after epoch \d+, step \d+ with 2 workers", output), output
    assert_ends_as(undisturbed, config)


def test_a_run_that_may_shrink_goes_on_with_fewer_and_grows_back(tmp_path: Path) -> None:
    """Its node is killed; another comes. The one worker's checkpoints are what the two go on from."""
    epochs = 45
    settings = {"distributed__elastic_check_s": 4, "distributed__start_timeout_s": 20}
    config = many(tmp_path, [1, 2], training__num_epochs=epochs, **settings)
    code, output = ended(child(config, "elastic", script="ray_nodes.py", sleep_s=0.2), timeout_s=300)
    assert code == 0, output
    told = re.findall(r"going on after epoch \d+, step \d+ with (\d) worker", output)
    assert told == ["1", "2"], output
    run = tmp_path / "many"
    assert len(worker_pids(run, 1) or []) == 1
    assert len(worker_pids(run, 2) or []) == 2
    done = [row["epoch"] for row in rows(run / "metrics.jsonl") if "time/epoch_s" in row]
    assert done == list(range(1, epochs + 1)), "every epoch stands in the history once"
    calm = many(tmp_path, training__num_epochs=epochs)
    alone(calm)
    assert_same_weights(weights(config), weights(calm, "alone"))
