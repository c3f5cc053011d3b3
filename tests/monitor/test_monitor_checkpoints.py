"""Names that lead elsewhere, and removing checkpoints: nothing but what is meant is reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from monitor_files import draw_checkpoint, draw_run

from cabruca.errors import CabrucaError, CheckpointError, RunError
from cabruca.monitor.checkpoints import CheckpointBooks, uses_of
from cabruca.monitor.places import inside, names_of
from cabruca.monitor.runs import size_of
from cabruca.tracking.run_dir import RunDir


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
