"""`cabruca tune`: what reaches the driver, and what can be seen of a study without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from drawn_study import METRIC, drawn_study, write_study

from cabruca.cli.main import main
from cabruca.config.study import load_study
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal

REPO = Path(__file__).resolve().parents[2]


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["tune", *map(str, args)])


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """What the driver was asked for; it ends at once, with exit code 7."""
    asked: list[SimpleNamespace] = []

    def run_study(study: Any, study_dir: Any, **options: Any) -> SimpleNamespace:
        asked.append(SimpleNamespace(study=study, study_dir=study_dir, **options))
        study_dir.write(study)
        return SimpleNamespace(state="finished", best=None, message="", exit_code=7)

    monkeypatch.setitem(sys.modules, "cabruca.distributed.study", SimpleNamespace(run_study=run_study))
    return asked


def ask(study_dir: StudyDir) -> None:
    """A trial was asked for: from now on the study is one that is gone on with."""
    with Journal(study_dir.results) as journal:
        journal.append({"event": "asked", "trial": 0, "params": {"optimizer.lr": 1e-3}})


def error(result: Result) -> str:
    assert result.exit_code == 2
    assert result.stderr.startswith("cabruca: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_flags_become_keys_of_study_and_base(tmp_path: Path, driver: list[SimpleNamespace]) -> None:
    flags = ["--trials", "5", "--max-concurrent", "3", "--time-budget", "90m", "--use-mlflow", "--use-wandb"]
    result = run(
        *("--study", write_study(tmp_path), *flags, "--address", "auto", "--no-dashboard"),
        *("--set", "data.tile_size=128", "--set", "study.sampler.seed=4", "--quiet"),
    )
    assert result.exit_code == 7, result.output
    (asked,) = driver
    study = asked.study
    assert (study.config.num_trials, study.config.max_concurrent_trials, study.config.time_budget_s) == (5, 3, 5400)
    assert (study.config.sampler.seed, study.base.data.tile_size) == (4, 128)
    assert (study.base.tracking.mlflow, study.base.tracking.wandb) == (True, True)
    assert (study.base.distributed.address, study.base.distributed.dashboard) == ("auto", False)
    assert asked.study_dir.path == tmp_path / "outputs" / "studies" / "drawn"
    assert (asked.quiet, asked.retry_failed) == (True, False)


def test_a_study_is_begun_once_and_gone_on_with_by_resume(tmp_path: Path, driver: list[SimpleNamespace]) -> None:
    path = write_study(tmp_path)
    assert run("--study", path, "--resume").exit_code == 7  # nothing there yet: it begins
    assert len(driver) == 1
    assert run("--study", path).exit_code == 7  # no trial was asked for yet: it begins anew
    driver.pop()
    ask(driver[0].study_dir)
    line = error(run("--study", path))
    assert "is there already; go on with it (--resume), lengthen it (" in line
    assert f"tune extend {driver[0].study_dir.path} --trials +10)" in line  # the folder: it works from any --output-dir
    assert run("--study", path, "--resume", "--max-concurrent", "1").exit_code == 7
    assert run("--study", path, "--retry-failed").exit_code == 7
    outputs = tmp_path / "outputs"
    assert run("resume", "drawn", "--output-dir", outputs, "--retry-failed", "--time-budget", "60").exit_code == 7
    assert [asked.retry_failed for asked in driver] == [False, False, True, True]
    assert driver[-1].study.config.time_budget_s == 60
    assert len(driver) == 4


def test_a_mistake_before_the_first_trial_does_not_lock_the_name(tmp_path: Path, driver: list[SimpleNamespace]) -> None:
    path = write_study(tmp_path)
    assert run("--study", path).exit_code == 7
    path.write_text(path.read_text().replace("max_epochs: 9", "max_epochs: 27").replace("val/mAP_50", "val/mAP"))
    for more in ([], ["--resume"]):
        assert run("--study", path, *more, "--set", "data.tile_size=128").exit_code == 7
        assert driver[-1].study.metrics == ("val/mAP",)
        assert driver[-1].study_dir.load().max_epochs == 27
    ask(driver[0].study_dir)
    path.write_text(path.read_text().replace("max_epochs: 27", "max_epochs: 9"))
    assert "max_epochs" in error(run("--study", path, "--resume", "--set", "data.tile_size=128"))


def test_a_secret_that_was_not_stored_is_asked_for(tmp_path: Path, driver: list[SimpleNamespace]) -> None:
    path, uri = write_study(tmp_path), "tracking.mlflow_uri=http://me:hunter2@127.0.0.1:1"
    assert run("--study", path, "--use-mlflow", "--set", uri).exit_code == 7
    ask(driver[0].study_dir)
    resume = ("resume", driver[0].study_dir.path)
    line = error(run(*resume))
    assert "tracking.mlflow_uri: http://me:***@127.0.0.1:1 was stored without its secret" in line
    assert "--set tracking.mlflow_uri=..." in line
    assert run(*resume, "--set", uri).exit_code == 7
    assert driver[-1].study.base.tracking.mlflow_uri == "http://me:hunter2@127.0.0.1:1"
    assert run(*resume, "--set", "tracking.mlflow=false").exit_code == 7  # nobody needs it then


def test_going_on_refuses_what_would_make_trials_incomparable(tmp_path: Path, driver: list[SimpleNamespace]) -> None:
    path = write_study(tmp_path)
    assert run("--study", path).exit_code == 7
    ask(driver[0].study_dir)
    outputs = tmp_path / "outputs"
    assert "data.tile_size" in error(run("resume", "drawn", "--output-dir", outputs, "--set", "data.tile_size=128"))
    path.write_text(path.read_text().replace("max_epochs: 9", "max_epochs: 27"))
    assert "max_epochs" in error(run("--study", path, "--resume"))
    assert len(driver) == 1


def test_extend_adds_trials_and_widens_the_space(tmp_path: Path, driver: list[SimpleNamespace]) -> None:
    path = write_study(tmp_path)
    outputs = tmp_path / "outputs"
    assert run("--study", path, "--set", "data.tile_size=128").exit_code == 7
    extend = ("extend", "drawn", "--output-dir", outputs)
    assert run(*extend, "--trials", "+20").exit_code == 7
    assert driver[-1].study.config.num_trials == 28
    assert run(*extend, "--trials", "30").exit_code == 7
    assert driver[-1].study.config.num_trials == 30
    assert "has 30 trials already; write +N for N more" in error(run(*extend, "--trials", "30"))
    assert "write +20 for 20 more, or 60 for 60 in all" in error(run(*extend, "--trials", "many"))
    path.write_text(path.read_text().replace("2.0e-3]", "1.0e-2]"))
    assert run(*extend, "--trials", "+1", "--study", path).exit_code == 7
    assert driver[-1].study.space["optimizer.lr"].high == 1e-2
    assert driver[-1].study.base.data.tile_size == 128, "what the flags had set stays"
    path.write_text(path.read_text().replace("5.0e-5", "1.0e-4"))
    assert "can only grow" in error(run(*extend, "--trials", "+1", "--study", path))
    path.write_text(path.read_text().replace("1.0e-4", "5.0e-5") + "set: {data.tile_size: 256}\n")
    assert "another `set`" in error(run(*extend, "--trials", "+1", "--study", path))
    assert StudyDir.open(outputs / "studies" / "drawn").load().config.num_trials == 31


def test_a_mistake_is_one_line_and_makes_no_folder(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    path.write_text(path.read_text().replace("optimizer.lr:", "optimizer.lrr:"))
    assert "optimizer.lr" in error(run("--study", path))
    assert "does not exist" in error(run("--study", tmp_path / "none.yaml"))
    assert not (tmp_path / "outputs").exists()


USAGE = [
    (["--resume"], "Missing option '--study'; or name a study: cabruca tune resume NAME"),
    (["--trials", "3"], "Missing option '--study'"),
    (["--trials", "0", "--study", "x"], "0 is not in the range x>=1"),
    (["--trials", "3", "status", "x"], "options of tune stand behind 'status', not before it"),
    (["--resume", "resume", "x"], "options of tune stand behind 'resume'"),
    (["--set", "a=1", "status", "x"], "options of tune stand behind 'status'"),
    (["--quiet", "resume", "x"], "options of tune stand behind 'resume'"),
    (["--json", "status", "x"], "options of tune stand behind 'status'"),
    (["--quiet"], "Missing option '--study'"),
    (["extend", "x"], "Missing option '--trials'"),
    (["--study", "x", "--trials", "3", "--set", "study.num_trials=4"], "given by --trials and by --set; give it once"),
    (["status", "nothing"], "'nothing' is no study folder and no study in outputs/studies"),
]


@pytest.mark.parametrize(("args", "line"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_usage_errors_say_what_to_write(
    args: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert line in error(run(*args))


def test_alone_it_shows_its_help() -> None:
    result = run()
    assert result.exit_code == 0
    assert "resume|status|show|extend|best|repeat NAME" in result.stdout


def test_status_shows_the_board_the_driver_and_how_to_go_on(tmp_path: Path) -> None:
    drawn_study(tmp_path)
    result = run("status", "drawn", "--output-dir", tmp_path / "outputs")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("study drawn: 5 of 8 trials done")
    assert lines[1] == "driver: not begun"
    assert max(map(len, lines[2:12])) <= 80
    assert "22 of 36 epochs run, 39% spared" in lines
    assert "tune resume" in lines[-1]
    found = json.loads(run("status", tmp_path / "outputs" / "studies" / "drawn", "--json").stdout)
    assert [row["trial"] for row in found["trials"]] == [2, 0, 6, 3, 5, 1, 7, 4]
    assert found["driver"] == {"state": "not begun", "alive": False}


def test_a_driver_that_was_killed_is_called_killed(tmp_path: Path) -> None:
    _, study_dir = drawn_study(tmp_path)
    row = {"state": "running", "pid": 2**22 + 1, "host": "gone", "heartbeat": 0.0, "epoch": 0, "message": ""}
    study_dir.status.write_text(json.dumps(row))
    assert "driver: killed" in run("status", study_dir.path).stdout


def test_show_is_the_best_trial_or_the_one_asked_for(tmp_path: Path) -> None:
    _, study_dir = drawn_study(tmp_path)
    lines = run("show", study_dir.path).stdout.splitlines()
    assert lines[0] == "trial 2 of study drawn: finished after 9 epochs, 3m00"
    assert "  optimizer.lr = 0.0019" in lines
    assert sum(f"{METRIC} " in line for line in lines) == 9
    assert lines[-2].endswith("######################## best")
    failed = run("show", study_dir.path, "--trial", "4").stdout
    assert "reason: TrainingDiverged" in failed
    found = json.loads(run("show", study_dir.path, "--trial", "3", "--json").stdout)
    assert [result[METRIC] for result in found["results"]] == [0.30, 0.38, 0.41]
    assert found["rung"] == 3
    assert "has no trial 9; there are 0 to 7" in error(run("show", study_dir.path, "--trial", "9"))


def test_best_gives_the_difference_the_configuration_and_the_command(tmp_path: Path) -> None:
    _, study_dir = drawn_study(tmp_path)
    study_dir.best_config.write_text("{}\n")
    text = run("best", study_dir.path).stdout
    assert f"trial 2: {METRIC} 0.7123 after epoch 9" in text
    assert "  model.backbone: resnet50 -> tf_efficientnet_lite0" in text
    assert "winners of short runs are often luck" in text
    assert "OMP_NUM_THREADS=1 " in text  # as many threads as the trial had, for the same last bits
    assert f"train --config {study_dir.best_config}" in text
    study_dir.results.unlink()
    assert "has no trial with a value yet" in error(run("best", study_dir.path))


def test_looking_imports_neither_ray_nor_optuna(tmp_path: Path) -> None:
    _, study_dir = drawn_study(tmp_path)
    code = f"""
import sys
from cabruca.cli.main import main
for name in ("status", "show", "best"):
    try:
        main(["tune", name, {str(study_dir.path)!r}])
    except SystemExit as done:
        assert done.code == 0
print([name for name in ("ray", "optuna", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] in ("[]", "['torch']")


@pytest.mark.parametrize("command", [["--study", "drawn.yaml"], ["repeat", "drawn"]], ids=["run", "repeat"])
def test_ray_is_imported_when_its_environment_is_set(tmp_path: Path, command: list[str]) -> None:
    """Ray reads RAY_AUTH_MODE once, when it is imported; later is too late for the token."""
    if command[0] == "repeat":
        drawn_study(tmp_path)
    else:
        write_study(tmp_path)
    code = f"""
import os, sys

class Guard:
    def find_spec(self, name, path=None, target=None):
        if name == "ray":
            print("MODE", os.environ.get("RAY_AUTH_MODE"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Guard())
from cabruca.cli.main import main
main(["tune", *{command!r}])
"""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["MODE token"], done.stderr


@pytest.mark.parametrize("path", sorted((REPO / "experiments" / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_of_the_repository_can_be_begun(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    study = load_study(path)
    assert study.config.name == path.stem
    assert len(study.space.keys) >= 2


def test_there_are_a_plain_a_multi_objective_and_a_study_with_workers() -> None:
    folder = REPO / "experiments" / "studies"
    studies = [load_study(path, base=REPO / "configs" / "training_config_light.yaml") for path in folder.glob("*.yaml")]
    assert {(len(study.metrics), study.config.workers_per_trial) for study in studies} == {(1, 1), (2, 1), (1, 2)}
