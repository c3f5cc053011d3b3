"""The table of runs, notes, checkpoints: what is read, what is written, and that nothing else is reached."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from monitor_files import draw_checkpoint, draw_run, draw_study

from cabruca.errors import CabrucaError, CheckpointError, RunError
from cabruca.monitor.checkpoints import CheckpointBooks, uses_of
from cabruca.monitor.compare import best_places, coordinates_of, curves_of, direction_of, metrics_of, stories_of
from cabruca.monitor.left import environment_of, pictures_by_epoch, settings_of, tail
from cabruca.monitor.notes import read_notes, write_notes
from cabruca.monitor.places import inside, names_of
from cabruca.monitor.runs import RunTable, matching, resume_command, size_of, state_of, why_dead
from cabruca.tracking.run_dir import RunDir


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


@pytest.mark.parametrize("name", ["../out", "one/../../out", "/etc", "", "..", "C:\\x", "a\0b", "one\\..\\..\\out"])
def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "outputs").mkdir()
    draw_run(tmp_path, "out")
    with pytest.raises(RunError, match="leaves the outputs folder"):
        inside(tmp_path / "outputs", name)


def test_links_are_neither_listed_nor_followed(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    draw_run(outputs, "one")
    elsewhere = draw_run(tmp_path, "elsewhere")
    (outputs / "link").symlink_to(elsewhere)
    assert names_of(outputs)[0] == ["one"]
    with pytest.raises(RunError, match="symbolic link"):
        CheckpointBooks(outputs).of("link")
    (outputs / "swapped").mkdir()
    (outputs / "swapped" / "status.json").write_text("{}")
    (outputs / "swapped" / "checkpoints").symlink_to(elsewhere / "checkpoints")
    with pytest.raises(RunError, match="symbolic link"):
        CheckpointBooks(outputs).delete("swapped", ["checkpoint_epoch_1.pth"])
    assert (elsewhere / "checkpoints" / "checkpoint_epoch_1.pth").is_file()
    assert size_of(outputs / "link") > 0  # a folder given outright is measured
    assert size_of(outputs) < size_of(outputs / "one") + 10_000


def test_checkpoints_are_listed_and_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cabruca.train import sidecar

    run = draw_run(tmp_path, "one", epochs=2)
    (run / "checkpoints" / "checkpoint_epoch_1.pth").write_bytes(b"x" * 2_000)
    read: list[Path] = []
    real = sidecar.sha256_of
    monkeypatch.setattr(sidecar, "sha256_of", lambda path: read.append(path) or real(path))
    books = CheckpointBooks(tmp_path)
    assert books.unread_bytes("one") == 8_000
    conditions = {one.path.name: one.condition for one in books.of("one")}
    assert conditions == {
        "checkpoint_best.pth": "intact",
        "checkpoint_latest.pth": "intact",
        "checkpoint_epoch_1.pth": "damaged",
        "checkpoint_epoch_2.pth": "intact",
    }
    assert len(read) == 4
    books.of("one")
    assert len(read) == 4
    assert books.unread_bytes("one") == 0
    draw_checkpoint(run, "checkpoint_latest", epoch=3)
    assert books.of("one")[1].epoch == 3
    assert len(read) == 5


def test_a_checkpoint_is_removed_with_its_sidecar_and_the_disk_freed_is_told(tmp_path: Path) -> None:
    run = draw_run(tmp_path, "one", epochs=3)
    folder = run / "checkpoints"
    os.link(folder / "checkpoint_epoch_2.pth", folder / "checkpoint_epoch_9.pth")
    books = CheckpointBooks(tmp_path)
    assert books.freed_by("one", ["checkpoint_epoch_1.pth", "checkpoint_epoch_9.pth"]) == 2_000  # 9 has a second name
    assert books.delete("one", ["checkpoint_epoch_1.pth"]) == 2_000
    assert not (folder / "checkpoint_epoch_1.pth").exists()
    assert not (folder / "checkpoint_epoch_1.json").exists()
    assert books.delete("one", ["checkpoint_epoch_9.pth"]) == 0
    assert books.delete("one", ["checkpoint_epoch_2.pth"]) == 2_000


@pytest.mark.parametrize(
    "name",
    [
        *("checkpoint_best.pth", "checkpoint_latest.pth", "../checkpoints/checkpoint_epoch_1.pth", "../status.json"),
        *("checkpoint_epoch_1.json", "/etc/passwd", "nothing.pth", "..", "", "sub\\x.pth", ".x.pth", "link.pth"),
    ],
)
def test_nothing_but_a_checkpoint_of_the_run_is_removed(tmp_path: Path, name: str) -> None:
    run = draw_run(tmp_path, "one", epochs=2)
    outside = tmp_path / "precious.pth"
    outside.write_text("precious")
    (run / "checkpoints" / "link.pth").symlink_to(outside)
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(CabrucaError):
        CheckpointBooks(tmp_path).delete("one", ["checkpoint_epoch_1.pth", name])
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before, "all are looked at first"


def test_the_newest_intact_checkpoint_stays_where_latest_is_gone(tmp_path: Path) -> None:
    run = draw_run(tmp_path, "one", epochs=3)
    for name in ("best", "latest"):
        (run / "checkpoints" / f"checkpoint_{name}.pth").unlink()
    with pytest.raises(CheckpointError, match="resume auto"):
        CheckpointBooks(tmp_path).delete("one", ["checkpoint_epoch_3.pth"])
    assert CheckpointBooks(tmp_path).delete("one", ["checkpoint_epoch_2.pth"]) == 2_000


def test_use_it_gives_commands_that_name_the_checkpoint(tmp_path: Path) -> None:
    run = RunDir(draw_run(tmp_path, "one"))
    texts = [use.command for use in uses_of(run, run.best, {"data": {"test_dir": "fields"}})]
    for text, name in zip(texts, ("evaluate", "predict", "train", "train"), strict=True):
        assert f" {name} --" in text
    assert all(str(run.best) in text for text in (texts[0], texts[1], texts[3]))
    assert "--images fields" in texts[0]


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
