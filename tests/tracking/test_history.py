"""metrics.jsonl and training_history.json: live, strict JSON, whole after a kill, without doubles after a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from run_helpers import rows

from cabruca.tracking.history import History, read_rows
from cabruca.train.protocols import Record


def _history(folder: Path) -> History:
    return History(folder / "metrics.jsonl", folder / "training_history.json")


def _columns(folder: Path) -> dict[str, list[Any]]:
    out: dict[str, list[Any]] = json.loads((folder / "training_history.json").read_text())
    return out


def _train(history: History, *, first_epoch: int, epochs: int, steps: int = 4) -> None:
    """A record a step and one at each epoch's end, as the loop makes them."""
    for epoch in range(first_epoch, first_epoch + epochs):
        for step in range(epoch * steps + 1, (epoch + 1) * steps + 1):
            history.append(Record(epoch, step, {"train/total_loss": 100.0 + step}))
        history.append_epoch(Record(epoch + 1, (epoch + 1) * steps, {"train/total_loss": float(epoch)}))


def test_a_row_has_the_contract_s_keys_and_nan_is_null(tmp_path: Path) -> None:
    history = _history(tmp_path)
    history.start()
    history.append_epoch(Record(1, 7, {"val/mAP": math.nan, "val/x": math.inf, "train/total_loss": 0.5}, stage=2))
    (row,) = rows(tmp_path / "metrics.jsonl")
    assert list(row) == ["time", "stage", "epoch", "step", "val/mAP", "val/x", "train/total_loss"]
    assert (row["stage"], row["epoch"], row["step"]) == (2, 1, 7)
    assert row["val/mAP"] is None
    assert row["val/x"] is None


def test_history_has_a_value_an_epoch_and_null_where_there_is_none(tmp_path: Path) -> None:
    history = _history(tmp_path)
    history.start()
    history.append_epoch(Record(1, 4, {"train/total_loss": 1.0}))
    assert _columns(tmp_path) == {"epoch": [1], "step": [4], "train/total_loss": [1.0]}  # before the second epoch
    history.append(Record(1, 6, {"train/total_loss": 9.0}))
    history.append_epoch(Record(2, 8, {"train/total_loss": 0.5, "val/mAP_50": 0.25}))
    assert _columns(tmp_path) == {
        "epoch": [1, 2],
        "step": [4, 8],
        "train/total_loss": [1.0, 0.5],
        "val/mAP_50": [None, 0.25],
    }


@pytest.mark.parametrize("torn", [b'{"time": 1.0, "stage": 0, "ep', b"\0\0\0\0", b'{"time": 1}', b"17"])
def test_a_half_written_last_line_is_passed_over_and_repaired(tmp_path: Path, torn: bytes) -> None:
    history = _history(tmp_path)
    history.start()
    _train(history, first_epoch=0, epochs=2)
    before = rows(tmp_path / "metrics.jsonl")
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    assert list(read_rows(tmp_path / "metrics.jsonl")) == before
    again = _history(tmp_path)
    again.start(epoch=2, step=8)
    assert rows(tmp_path / "metrics.jsonl") == before
    _train(again, first_epoch=2, epochs=1)
    assert _columns(tmp_path)["epoch"] == [1, 2, 3]


@pytest.mark.parametrize(("epoch", "step"), [(2, 8), (1, 6), (1, 8), (1, 4), (0, 0)])
def test_after_a_resume_every_place_is_there_once(tmp_path: Path, epoch: int, step: int) -> None:
    """Killed after epoch 3; resumed from the checkpoint of (epoch, step), (1, 8): the last step before a validation."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    whole = _history(undisturbed)
    whole.start()
    _train(whole, first_epoch=0, epochs=4)
    first = _history(killed)
    first.start()
    _train(first, first_epoch=0, epochs=3)

    second = _history(killed)
    second.start(epoch=epoch, step=step)
    for row in rows(undisturbed / "metrics.jsonl"):  # the rest, as the loop would make it
        place = (row["epoch"], row["step"])
        record = Record(*place, {"train/total_loss": row["train/total_loss"]})
        closes = row["train/total_loss"] == row["epoch"] - 1
        if row["step"] > step or row["epoch"] > epoch:
            (second.append_epoch if closes else second.append)(record)

    def places(folder: Path) -> list[tuple[int, int, float]]:
        return [(r["epoch"], r["step"], r["train/total_loss"]) for r in rows(folder / "metrics.jsonl")]

    assert places(killed) == places(undisturbed)
    assert _columns(killed) == _columns(undisturbed)


def test_a_lost_history_is_made_again_from_the_rows(tmp_path: Path) -> None:
    history = _history(tmp_path)
    history.start()
    _train(history, first_epoch=0, epochs=3)
    before = _columns(tmp_path)
    (tmp_path / "training_history.json").unlink()
    _history(tmp_path).start(epoch=3, step=12)
    assert _columns(tmp_path) == before


def test_a_fresh_start_in_a_used_folder_forgets_the_old_rows(tmp_path: Path) -> None:
    history = _history(tmp_path)
    history.start()
    _train(history, first_epoch=0, epochs=2)
    _history(tmp_path).start()
    assert rows(tmp_path / "metrics.jsonl") == []
    assert _columns(tmp_path) == {"epoch": [], "step": []}
