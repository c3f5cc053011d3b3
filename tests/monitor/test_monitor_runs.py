"""The table of runs, notes, what else a run leaves, and runs side by side."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from monitor_files import draw_run, draw_study

from cabruca.errors import RunError
from cabruca.monitor.compare import best_places, coordinates_of, curves_of, direction_of, metrics_of, stories_of
from cabruca.monitor.earlier import pictures_at, steps_with_pictures
from cabruca.monitor.figures import parallel_figure
from cabruca.monitor.left import environment_of, pictures_by_epoch, settings_of, tail
from cabruca.monitor.notes import read_notes, write_notes
from cabruca.monitor.places import names_of
from cabruca.monitor.runs import RunTable, best_first, matching, resume_command, state_of, why_dead
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.runs import Story


def test_an_empty_or_absent_folder_has_no_runs(tmp_path: Path) -> None:
    assert RunTable(tmp_path).all() == []
    assert names_of(tmp_path / "nowhere") == ([], [], [])


def test_a_row_says_what_the_files_say(tmp_path: Path) -> None:
    run = draw_run(tmp_path, "one", epochs=4, best=0.6)
    (facts,) = RunTable(tmp_path).all()
    history = json.loads((run / "training_history.json").read_text())
    assert (facts.name, facts.state, facts.monitor) == ("one", "finished", "val/mAP_50")
    assert (facts.best, facts.best_epoch) == (max(history["val/mAP_50"]), 4)
    assert (facts.epoch, facts.epochs, facts.device) == (4, 4, "cpu")
    assert facts.elapsed_s == pytest.approx(240, abs=1)
    assert facts.bytes == sum(path.stat().st_size for path in run.rglob("*") if path.is_file())


@pytest.mark.parametrize("status", ["", "{", "[]", '{"state": "no such", "heartbeat": "x", "epoch": null}'])
def test_a_half_written_folder_is_a_row(tmp_path: Path, status: str) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "status.json").write_text(status)
    (tmp_path / "half" / "config.yaml").write_text("training: [1,")
    (tmp_path / "half" / "training_history.json").write_text('{"epoch": [1')
    (facts,) = RunTable(tmp_path).all()
    assert (facts.state, facts.best, facts.epochs) == ("unknown", None, None)


def test_only_a_file_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cabruca.monitor import runs as module

    draw_run(tmp_path, "one")
    run = draw_run(tmp_path, "two")
    table = RunTable(tmp_path)
    table.all()
    read: list[Path] = []
    real = module.read_own
    monkeypatch.setattr(module, "read_own", lambda path: read.append(path) or real(path))
    table.all()
    assert read == []
    (run / "config.yaml").write_text("training: {num_epochs: 77}\n")
    assert table.look_at("two").epochs == 77
    assert read == [run / "config.yaml"]


def test_a_run_that_is_removed_meanwhile_is_left_out(tmp_path: Path) -> None:
    draw_run(tmp_path, "one")
    table = RunTable(tmp_path)
    table.names = lambda: (["gone", "one"], [], [])  # type: ignore[method-assign]
    assert [one.name for one in table.all()] == ["one"]


def test_a_run_died_when_its_heartbeat_is_older_than_a_minute(tmp_path: Path) -> None:
    draw_run(tmp_path, "alive", state="running")
    draw_run(tmp_path, "dead", state="running", age_s=61)
    table = RunTable(tmp_path)
    assert (table.look_at("alive").state, table.look_at("dead").state) == ("running", "died")
    assert "61 s old" in why_dead(table.look_at("dead"))
    elsewhere = {"state": "running", "pid": 1, "host": "another", "heartbeat": time.time() - 59}
    assert (state_of(elsewhere), state_of(elsewhere, now=time.time() + 2)) == ("running", "died")


def test_a_killed_run_is_dead_at_once_and_says_how_to_go_on(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    draw_run(tmp_path, "killed", state="running", pid=child.pid)
    facts = RunTable(tmp_path).look_at("killed")
    assert facts.state == "died"
    assert "process is gone" in why_dead(facts)
    words = resume_command(RunDir(tmp_path / "killed"))
    assert f"train --config {tmp_path}/killed/config.yaml --resume auto --experiment-name killed" in words
    assert words.endswith(f"--output-dir {tmp_path}")


def test_trials_of_a_study_are_runs_on_request_and_resume_with_it(tmp_path: Path) -> None:
    draw_run(tmp_path, "own")
    study = draw_study(tmp_path, trials=3)
    draw_run(study.trials, "trial_0000")
    runs, trials, studies = names_of(tmp_path)
    assert runs == ["own"]
    assert trials == ["studies/drawn/trials/trial_0000"]
    assert studies == ["studies/drawn"]
    assert [one.name for one in RunTable(tmp_path).all()] == ["own"]
    assert len(RunTable(tmp_path).all(trials=True)) == 2
    assert resume_command(study.trial_dir(0)).endswith(f"tune resume {study.path}")


def test_runs_at_work_come_first_and_keep_their_places(tmp_path: Path) -> None:
    for name, state, age in (("b", "running", 1), ("a", "running", 30), ("old", "finished", 50), ("new", "failed", 5)):
        draw_run(tmp_path, name, state=state, age_s=age)
    assert [one.name for one in RunTable(tmp_path).all()] == ["a", "b", "new", "old"]


def test_the_best_comes_first_whichever_way_the_metric_goes(tmp_path: Path) -> None:
    for name, best in (("worse", 0.3), ("better", 0.8)):
        draw_run(tmp_path, name, best=best)
        run = draw_run(tmp_path, f"{name}_loss", best=best)
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("monitor_metric: val/mAP_50", "monitor_metric: val/total_loss"))
        (run / "config.yaml").open("a").write("  minimize_metric: true\n")
        history = {"epoch": [1], "val/total_loss": [1 - best]}
        (run / "training_history.json").write_text(json.dumps(history))
    draw_run(tmp_path, "none", epochs=0)
    found = sorted(RunTable(tmp_path).all(), key=best_first)
    assert [one.name for one in found] == ["better", "worse", "better_loss", "worse_loss", "none"]


def test_search_finds_names_states_tags_and_notes(tmp_path: Path) -> None:
    draw_run(tmp_path, "first")
    run = draw_run(tmp_path, "second", state="failed")
    write_notes(RunDir(run), ["Field 7"], "wet season")
    everything = RunTable(tmp_path).all()
    for words in ("second", "FIELD cpu", "wet", "failed"):
        assert [one.name for one in matching(everything, words)] == ["second"]
    assert [one.name for one in matching(everything, "", ["finished"])] == ["first"]
    assert matching(everything, "nothing of the kind") == []


def test_notes_are_kept_and_what_others_wrote_stays(tmp_path: Path) -> None:
    run = RunDir(draw_run(tmp_path, "one"))
    path = run.path / "notes.json"
    path.write_text('{"tags": "no list", "colour": "green"}')
    assert read_notes(path).tags == ()
    written = write_notes(run, [" a ", "b", "a", ""], " said \n")
    assert (written.tags, written.note) == (("a", "b"), "said")
    assert read_notes(path) == written
    assert json.loads(path.read_text())["colour"] == "green"


def test_notes_that_are_too_long_or_lead_elsewhere_are_refused(tmp_path: Path) -> None:
    run = RunDir(draw_run(tmp_path, "one"))
    for tags, note in ((["x" * 41], ""), ([str(i) for i in range(21)], ""), ([], "x" * 10_001)):
        with pytest.raises(RunError, match="shorten it"):
            write_notes(run, tags, note)
    other = tmp_path / "other.json"
    (run.path / "notes.json").symlink_to(other)
    with pytest.raises(RunError, match="link"):
        write_notes(run, [], "x")
    assert not other.exists()


def test_settings_show_what_differs_from_the_defaults(tmp_path: Path) -> None:
    run = RunDir(draw_run(tmp_path, "one", lr=0.02))
    run.config_yaml.write_text(
        run.config_yaml.read_text() + "tracking: {mlflow_uri: 'http://me:secret@host'}\nold: 3\n"
    )
    found = {one.key: one for one in settings_of(run)}
    assert (found["optimizer.lr"].value, found["optimizer.lr"].default, found["optimizer.lr"].differs) == (
        *(0.02, 0.0001, True),
    )
    assert not found["data.tile_size"].differs
    assert found["old"].differs
    assert found["tracking.mlflow_uri"].value == "http://me:***@host"


def test_what_else_a_run_leaves(tmp_path: Path) -> None:
    run = RunDir(draw_run(tmp_path, "one"))
    assert environment_of(run)["packages.torch"] == "2.9"
    run.log.write_text("".join(f"line {i}\n" for i in range(5_000)))
    assert tail(run.log, 3) == "line 4997\nline 4998\nline 4999"
    assert tail(run.path / "absent.log") == ""
    make: Callable[[str], None] = lambda name: (  # noqa: E731
        (run.predictions / name).parent.mkdir(parents=True, exist_ok=True),
        (run.predictions / name).write_bytes(b"png"),
    )
    for name in ("val_a.png", "epoch_0003/val_a.png", "val_b_epoch_12.png", "notes.txt", ".val_c.png"):
        make(name)
    found = {epoch: [path.name for path in paths] for epoch, paths in pictures_by_epoch(run).items()}
    assert found == {3: ["val_a.png"], 12: ["val_b_epoch_12.png"], None: ["val_a.png"]}
    run.predictions.rename(tmp_path / "elsewhere")
    run.predictions.symlink_to(tmp_path / "elsewhere")
    assert pictures_by_epoch(run) == {}


def test_pictures_of_earlier_validations_come_from_tensorboard(tmp_path: Path) -> None:
    from run_helpers import LineTask, line_config

    from cabruca.run import run_training

    config = line_config(tmp_path, experiment_name="one", training__num_epochs=3, tracking__tensorboard=True)
    run_training(config, task_factory=LineTask, quiet=True)
    folder = RunDir(tmp_path / "one").tensorboard
    places = steps_with_pictures(folder)
    assert list(places) == [6, 12, 18]
    pictures = pictures_at(places[12], 12)
    assert list(pictures) == ["line 1"]
    assert pictures["line 1"].startswith(b"\x89PNG")
    with next(folder.glob("events*")).open("ab") as file:
        file.write(b"half an event")
    assert steps_with_pictures(folder) == places
    assert steps_with_pictures(tmp_path / "nowhere") == {}


def test_runs_are_compared_and_the_better_value_is_known(tmp_path: Path) -> None:
    draw_run(tmp_path, "a", lr=0.01, best=0.5)
    draw_run(tmp_path, "b", lr=0.02, best=0.7)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "status.json").write_text("{}")
    stories, left_out = stories_of(tmp_path, ["a", "b", "empty", "../x"])
    assert [story.name for story in stories] == ["a", "b"]
    assert len(left_out) == 2
    assert metrics_of(stories)[0] == "val/mAP_50"
    assert [line.name for line in curves_of(stories, "val/mAP_50")] == ["a", "b"]
    assert curves_of(stories, "val/undefined")[0].x.tolist() == []
    columns = coordinates_of(stories, "val/mAP_50")
    assert columns["lr"] == [0.01, 0.02]
    assert columns["val/mAP_50"][1] > columns["val/mAP_50"][0]
    assert direction_of(stories, "val/mAP_50") is False


def test_settings_that_end_alike_have_a_column_each() -> None:
    settings = ({"optimizer.type": "adam", "scheduler.type": "cosine", "optimizer.lr": 0.1, "loss.x": 1},)
    settings += ({"optimizer.type": "sgd", "scheduler.type": "plateau", "optimizer.lr": 0.2, "loss.x": 1},)
    stories = [Story(str(n), own, {"epoch": [1], "val/a": [n]}, 0, "val/a") for n, own in enumerate(settings)]
    assert coordinates_of(stories, "val/a") == {
        "run": ["0", "1"],
        "optimizer.type": ["adam", "sgd"],
        "scheduler.type": ["cosine", "plateau"],
        "lr": [0.1, 0.2],
        "val/a": [0, 1],
    }
    assert "run" not in coordinates_of(8 * stories, "val/a"), "sixteen names cannot be read"


def test_run_names_that_begin_alike_are_told_apart() -> None:
    names = ["cabruca_20261126_101112", "cabruca_20261126_111213"]
    (axis,) = parallel_figure({"run": names}, None).data[0].dimensions
    assert list(axis.ticktext) == ["cabruca…126_101112", "cabruca…126_111213"]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("val/mAP_50", [0.5, None, 0.7], [2]),
        ("val/total_loss", [0.5, 0.2, 0.2], [1, 2]),
        ("time/epoch_s", [1.0, 2.0], []),
        ("val/mAP", [0.5, 0.5], []),
        ("val/mAP", [None, None], []),
    ],
)
def test_the_best_of_a_row(metric: str, values: list[float | None], best: list[int]) -> None:
    assert best_places(metric, values) == best
