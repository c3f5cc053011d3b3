"""Checkpoint files: what they hold, what they refuse, and that no kill leaves the folder without a good one."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import kill_myself, killed_child

from cabruca.errors import CheckpointError
from cabruca.train import checkpoint


def state(epoch: int) -> dict[str, Any]:
    return {
        "model": {"w": torch.full((300,), float(epoch))},
        "epoch": epoch,
        "step": 10 * epoch,
        "best": {"value": None},
    }


@pytest.fixture
def latest(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint_latest.pth"
    checkpoint.write(path, state(1), metric=0.5)
    return path


def test_what_is_written_is_read_back(latest: Path) -> None:
    back = checkpoint.read(latest)
    assert torch.equal(back.pop("model")["w"], torch.ones(300))
    assert back == {"format_version": checkpoint.FORMAT_VERSION, "epoch": 1, "step": 10, "best": {"value": None}}
    sidecar = json.loads(latest.with_suffix(".json").read_text())
    assert (sidecar["epoch"], sidecar["step"], sidecar["metric"]) == (1, 10, 0.5)
    assert sidecar["bytes"] == latest.stat().st_size
    assert checkpoint.is_intact(latest)
    assert sorted(p.name for p in latest.parent.iterdir()) == ["checkpoint_latest.json", "checkpoint_latest.pth"]


@pytest.mark.parametrize("metric", [None, float("nan"), float("inf")])
def test_a_metric_that_is_no_number_is_null(tmp_path: Path, metric: float | None) -> None:
    checkpoint.write(tmp_path / "a.pth", state(1), metric=metric)
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)["metric"] is None


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))], ids=["torch", "pickle"])
def test_code_is_refused_and_not_run(tmp_path: Path, save: Any) -> None:
    mark = tmp_path / "ran"
    save({"format_version": 1, "x": Evil(mark)}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth") as error:
        checkpoint.read(tmp_path / "evil.pth")
    assert not mark.exists()
    assert "\n" not in str(error.value)


def test_refusals_are_one_line_with_a_remedy(tmp_path: Path, latest: Path) -> None:
    good = latest.read_bytes()
    files = {"empty": b"", "noise": b"noise" * 99, "torn": good[: len(good) // 2], "text": b"epoch: 3\n"}
    for name, content in files.items():
        (tmp_path / f"{name}.pth").write_bytes(content)
    torch.save({"state_dict": {}}, tmp_path / "foreign.pth")
    torch.save([1], tmp_path / "list.pth")
    torch.save({"format_version": checkpoint.FORMAT_VERSION + 1}, tmp_path / "future.pth")
    for name in [*files, "foreign", "list", "future", "missing"]:
        with pytest.raises(CheckpointError, match=f"{name}.pth") as error:
            checkpoint.read(tmp_path / f"{name}.pth")
        assert "\n" not in str(error.value), name
        assert ";" in str(error.value), name
    with pytest.raises(CheckpointError, match="install a newer cabruca"):
        checkpoint.read(tmp_path / "future.pth")


def test_one_flipped_bit_in_a_weight_is_noticed(latest: Path) -> None:
    content = bytearray(latest.read_bytes())
    where = content.index(torch.ones(4).numpy().tobytes())  # torch itself does not look at its CRCs here
    content[where] ^= 1
    latest.write_bytes(content)
    assert not checkpoint.is_intact(latest)
    with pytest.raises(CheckpointError, match="sha256"):
        checkpoint.read(latest)


def test_a_copy_without_its_sidecar_can_be_read_but_is_not_vouched_for(latest: Path, tmp_path: Path) -> None:
    (tmp_path / "sent.pth").write_bytes(latest.read_bytes())
    assert checkpoint.read(tmp_path / "sent.pth")["epoch"] == 1
    assert not checkpoint.is_intact(tmp_path / "sent.pth")


@pytest.mark.parametrize("value", [np.float64(1), np.ones(2), {1, 2}, Path("x"), torch.nn.Linear(1, 1)])
def test_what_could_not_be_read_back_is_not_written(latest: Path, value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"state\.task\.x\[0\]"):
        checkpoint.write(latest, {**state(2), "task": {"x": [value]}}, metric=None)
    assert checkpoint.read(latest)["epoch"] == 1


def test_copies_are_independent_of_what_is_written_later(latest: Path) -> None:
    best = latest.with_name("checkpoint_best.pth")
    checkpoint.copy(latest, best)
    checkpoint.copy(latest, best)  # once more: two names of one file
    checkpoint.write(latest, state(2), metric=None)
    assert (checkpoint.read(best)["epoch"], checkpoint.read(latest)["epoch"]) == (1, 2)
    assert checkpoint.is_intact(best)
    assert not list(best.parent.glob(".*"))


def test_copy_works_without_hard_links(latest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError("not here")

    monkeypatch.setattr(os, "link", no_links)
    checkpoint.copy(latest, latest.with_name("best.pth"))
    assert checkpoint.is_intact(latest.with_name("best.pth"))


def test_a_temporary_name_left_by_a_killed_copy_is_not_written_into(latest: Path) -> None:
    best = latest.with_name("checkpoint_best.pth")
    os.link(latest, best.with_name(f".{best.name}.tmp"))
    checkpoint.write(best, state(7), metric=None)
    assert checkpoint.read(latest)["epoch"] == 1


def test_newest_intact_is_the_one_written_last_that_holds(latest: Path) -> None:
    folder = latest.parent
    checkpoint.write(folder / "checkpoint_epoch_9.pth", state(9), metric=None)  # of a run that was rewound after it
    checkpoint.write(latest, state(2), metric=None)
    assert checkpoint.newest_intact(folder) == latest
    latest.write_bytes(latest.read_bytes()[:-50])
    assert checkpoint.newest_intact(folder) == folder / "checkpoint_epoch_9.pth"
    assert checkpoint.newest_intact(folder / "nowhere") is None


def test_a_full_disk_keeps_the_checkpoint_before(latest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_flush", full)
    with pytest.raises(CheckpointError, match=r"No space left.*untouched"):
        checkpoint.write(latest, state(2), metric=None)
    assert checkpoint.read(latest)["epoch"] == 1
    assert checkpoint.is_intact(latest)


DISK_OPERATIONS = [(os, "fsync"), (Path, "replace"), (os, "link"), (Path, "unlink"), (torch, "save"), (json, "dump")]


@pytest.mark.parametrize("name", ["write", "copy"])
def test_no_kill_between_two_disk_operations_loses_anything(tmp_path: Path, name: str) -> None:
    """SIGKILL before the n-th and after the n-th operation on the disk, for every n: a good `latest` is there."""

    def work(path: Path) -> None:
        if name == "write":
            checkpoint.write(path, state(2), metric=None)
        else:
            checkpoint.copy(path.with_name("other.pth"), path)

    killed = True
    n = 0
    while killed:
        folder = tmp_path / str(n)
        path = folder / "checkpoint_latest.pth"
        checkpoint.write(path, state(1), metric=None)
        checkpoint.write(path.with_name("other.pth"), state(2), metric=None)
        killed = killed_child(lambda path=path, n=n: (_kill_at(n), work(path)))
        assert checkpoint.is_intact(path), n
        assert checkpoint.read(path)["epoch"] in (1, 2)
        checkpoint.write(path, state(3), metric=None)  # what the kill left behind is in nobody's way
        assert checkpoint.read(path)["epoch"] == 3
        assert not list(folder.glob(".checkpoint_latest*"))
        n += 1
    assert n > 2 * 5  # before and after at least five operations


def _kill_at(moment: int) -> None:
    """Make this process die at the `moment`-th of: before the first disk operation, after it, before the second..."""
    left = [moment]

    def tick() -> None:
        if left[0] == 0:
            kill_myself()
        left[0] -= 1

    for owner, operation in DISK_OPERATIONS:
        real = getattr(owner, operation)

        def wrapped(*args: Any, real: Any = real, **kwargs: Any) -> Any:
            tick()
            result = real(*args, **kwargs)
            tick()
            return result

        setattr(owner, operation, wrapped)
