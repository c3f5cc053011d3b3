"""The section `testing`: a finished run ends with one test of its best checkpoint, and never because of it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from drawn_farm import farm_config, farm_settings, write_farm

from cabruca import held_out
from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config
from cabruca.evaluation import evaluate
from cabruca.held_out import measure_best, wanted
from cabruca.run import run_training
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import read_status


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_farm(tmp_path_factory.mktemp("farm"), pictures=2)


def with_test(farm: Path, folder: Path, **changes: Any) -> Config:
    shutil.copy(farm / "farm.json", farm / "test.json")
    test_set = {"data.test_dir": str(farm / "images"), "data.test_annotations": str(farm / "test.json")}
    return farm_config(farm, folder, {**test_set, "data.windows_per_epoch": 2, "training.num_epochs": 1, **changes})


@pytest.fixture(scope="module")
def run(farm: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("run")
    config = with_test(farm, folder, **{"experiment_name": "plot", "testing.generate_report": True})
    assert run_training(config, quiet=True).state == "finished"
    return RunDir(folder / "plot")


def test_the_best_checkpoint_is_measured_on_the_test_set(run: RunDir, farm: Path) -> None:
    found = json.loads((run.test / "metrics.json").read_text())
    assert found == evaluate(run.best, farm / "images", farm / "farm.json", device="cpu")
    assert found["total_count_true"] == 12
    assert [p.name for p in (run.test / "pictures").iterdir()] == ["test_1_0_0.png"]
    text = (run.test / "report.md").read_text()
    assert "# Test of plot" in text
    assert "(pictures/test_1_0_0.png)" in text
    assert (run.test / "plots" / "pr_curve.png").stat().st_size > 1000
    assert "(plots/confusion.png)" in text
    assert "| test (held out) |" in run.model_card.read_text(encoding="utf-8")
    assert (run.test / "pictures" / "test_1_0_0.png").stat().st_size > 1000
    log = run.log.read_text()
    assert "test: measuring checkpoint_best.pth on" in log
    assert "test/metrics.json" in log
    assert (read_status(run.status) or {})["state"] == "finished"


def test_switches_of_the_section_are_obeyed(
    run: RunDir, farm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def measure(*_: Any, **options: Any) -> dict[str, float | None]:
        seen.update(options)
        return {"mAP_50": 0.5}

    monkeypatch.setattr(held_out, "evaluate", measure)
    config = with_test(farm, tmp_path, **{"testing.batch_size": 3, "testing.save_outputs": False})
    assert measure_best(run, config, True) == {"mAP_50": 0.5}
    assert (seen["batch_size"], seen["pictures_dir"]) == (3, None)
    assert [p.name for p in run.test.iterdir()] == ["metrics.json"]  # what an earlier test left is gone


@pytest.mark.parametrize("used", ["train", "val"])
def test_a_set_that_was_used_is_not_called_held_out(
    run: RunDir, farm: Path, used: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(held_out, "evaluate", lambda *_, **__: {"mAP_50": 0.5})
    config = with_test(farm, run.path.parent, **{f"data.{used}_annotations": str(farm / "test.json")})
    with caplog.at_level(logging.WARNING, "cabruca"):
        measure_best(run, config, True)
    (line,) = [r.getMessage() for r in caplog.records]
    name = {"train": "training", "val": "validation"}[used]
    assert line == f"test: {farm / 'test.json'} is the {name} set too, so it is not held out"


def test_batch_size_changes_no_number(run: RunDir, farm: Path) -> None:
    one, two = (evaluate(run.best, farm / "images", farm / "farm.json", batch_size=n) for n in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert two[name] == pytest.approx(value, abs=1e-4), name


def test_a_test_that_fails_costs_a_warning(run: RunDir, farm: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = with_test(farm, run.path.parent, **{"data.test_annotations": "data/typo.json"})
    with caplog.at_level(logging.WARNING, "cabruca"):
        assert measure_best(run, config, True) is None
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("the run is finished, its test is not (data.test_annotations data/typo.json is not there")
    assert f"evaluate --checkpoint {run.best} --images {farm / 'images'} --annotations data/typo.json" in line
    assert line in run.log.read_text()


def test_nothing_in_a_test_undoes_the_run(
    run: RunDir, farm: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("broken\nmore")

    monkeypatch.setattr(held_out, "evaluate", fail)
    with caplog.at_level(logging.WARNING, "cabruca"):
        assert measure_best(run, with_test(farm, run.path.parent), True) is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_in_the_test_is_told_and_a_resume_does_it(
    farm: Path,
    run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    number: int,
    code: int,
) -> None:
    again = RunDir(Path(shutil.copytree(run.path, run.path.with_name(f"again_{code}"))))
    shutil.rmtree(again.test, ignore_errors=True)
    config = with_test(farm, again.path.parent, experiment_name=again.name)
    before = signal.getsignal(number)

    def stop(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), number)
        time.sleep(5)

    monkeypatch.setattr(held_out, "evaluate", stop)
    stopped = run_training(config, resume="auto", quiet=True)
    assert (stopped.state, stopped.exit_code) == ("finished", code)
    assert signal.getsignal(number) is before
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert line.startswith(f"the run is finished, its test is not ({signal.Signals(number).name})")
    assert not again.was_tested
    monkeypatch.setattr(held_out, "evaluate", lambda *_, **__: {"mAP_50": 0.5})
    assert run_training(config, resume="auto", quiet=True).exit_code == 0
    assert json.loads((again.test / "metrics.json").read_text()) == {"mAP_50": 0.5}
    monkeypatch.setattr(held_out, "evaluate", lambda *_, **__: pytest.fail("tested twice"))
    run_training(config, resume="auto", quiet=True)


def test_who_wants_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    default = {"data": {"test_annotations": "data/annotations/test.json"}}
    assert not wanted(Config())
    assert wanted(config_from_dict(default))  # said, at the default value too
    assert not wanted(config_from_dict(Config().to_dict()))  # of a resolved file nobody said it
    gone_on_with = config_from_dict(Config().to_dict()).model_copy(update={"distributed": Config().distributed})
    assert not wanted(gone_on_with)  # its workers are those of the new command
    assert wanted(config_from_dict({**Config().to_dict(), "data": {"test_annotations": "mine.json"}}))
    (tmp_path / "data" / "annotations").mkdir(parents=True)
    (tmp_path / "data" / "annotations" / "test.json").touch()
    assert wanted(Config())


def test_a_run_that_did_not_finish_is_not_tested(farm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cabruca.run.train", _stopped)
    monkeypatch.setattr(held_out, "evaluate", lambda *_, **__: pytest.fail("tested"))
    run_training(with_test(farm, tmp_path), quiet=True)


def _stopped(*_: Any, **__: Any) -> Any:
    from cabruca.train.protocols import TrainResult

    return TrainResult("stopped", 0, 0, None, None, {}, "a study stopped it")


def test_settings_of_the_farm_name_no_test_set(farm: Path, tmp_path: Path) -> None:
    """What the other tests of whole runs rely on."""
    assert not any("test" in key for key in farm_settings(farm, tmp_path))
