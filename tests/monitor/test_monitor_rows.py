"""metrics.jsonl read as it grows, and the curves that come of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from monitor_files import draw_rows

from cabruca.monitor.curves import GROUPS, best_point, curve, grouped, smooth, thin
from cabruca.monitor.rows import Rows
from cabruca.tracking.files import to_json, write_atomic


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(to_json(row) + "\n" for row in rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(draw_rows(3, 5, 1e9)))
    return path


def test_only_what_is_new_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cabruca.monitor import rows as module

    rows = Rows(path)
    assert rows.advance()
    assert (len(rows), rows.complete) == (18, True)
    parsed: list[bytes] = []
    real = module.parse_row
    monkeypatch.setattr(module, "parse_row", lambda line: parsed.append(line) or real(line))
    assert not rows.advance()
    assert parsed == []
    with path.open("a") as file:
        file.write(lines([{"time": 1e9, "stage": 0, "epoch": 3, "step": 16, "train/total_loss": 7.5}]))
    assert rows.advance()
    assert len(parsed) == 1
    assert rows.column("train/total_loss")[1][-1] == 7.5


def test_a_torn_last_line_waits_for_its_rest(path: Path) -> None:
    line = lines([{"time": 1e9, "stage": 0, "epoch": 3, "step": 16, "train/total_loss": 7.5}])
    with path.open("a") as file:
        file.write(line[:30])
    rows = Rows(path)
    rows.advance()
    assert (len(rows), rows.torn) == (18, 0)
    with path.open("a") as file:
        file.write(line[30:])
    rows.advance()
    assert len(rows) == 19


def test_half_a_line_in_the_middle_zeros_and_lists_are_passed_over(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"time": 17, "st\n' + b"\0" * 40 + b"\n[1, 2]\n\n" + b'{"epoch": 3, "step": 16, "a": 1}\n')
    rows = Rows(path)
    rows.advance()
    assert len(rows) == 19
    assert rows.torn == 2
    assert np.isnan(rows.own("time")[-1])


def test_nan_and_null_are_gaps_and_no_errors(path: Path) -> None:
    with path.open("a") as file:
        file.write('{"time": 1, "stage": 0, "epoch": 3, "step": 16, "val/a": NaN, "val/undefined": null}\n')
    rows = Rows(path)
    rows.advance()
    assert "val/undefined" not in rows.names
    assert np.isnan(rows.column("val/a")[1]).all()
    assert best_point(rows, "val/a", "epoch", minimize=False) is None
    assert np.isnan(curve(rows, "val/a", smoothing=0.5).y).all()


def test_a_resumed_run_s_file_is_read_anew(path: Path) -> None:
    rows = Rows(path)
    rows.advance()
    write_atomic(path, lines(draw_rows(1, 5, 1e9)))
    assert rows.advance()
    assert len(rows) == 6


def test_a_file_that_is_not_there_yet_or_any_more(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "metrics.jsonl")
    assert not rows.advance()
    assert (rows.complete, rows.names, len(rows.epoch_places())) == (True, [], 0)
    (tmp_path / "metrics.jsonl").write_text(lines(draw_rows(1, 2, 1e9)))
    assert rows.advance()
    (tmp_path / "metrics.jsonl").unlink()
    assert rows.advance()
    assert len(rows) == 0


def test_a_large_file_is_read_in_several_looks(path: Path) -> None:
    row = lines([{"time": 1.0, "stage": 0, "epoch": 0, "step": 1, "train/total_loss": 1.0}])
    path.write_text(row * 60_000)
    rows = Rows(path)
    rows.advance(budget_s=0.0)
    first = len(rows)
    assert 0 < first < 60_000
    assert not rows.complete
    while not rows.complete:
        rows.advance(budget_s=0.0)
    assert len(rows) == 60_000


def test_rows_inside_an_epoch_lie_between_its_ends(path: Path) -> None:
    rows = Rows(path)
    rows.advance()
    assert np.allclose(rows.epoch_places()[:7], [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.2])
    with path.open("a") as file:
        file.write(lines([{"epoch": 3, "step": 17, "train/total_loss": 1.0}]))
    rows.advance()
    assert np.isclose(rows.epoch_places()[-1], 3.4)


def test_a_curve_has_steps_or_epochs_and_never_both(path: Path) -> None:
    rows = Rows(path)
    rows.advance()
    assert len(curve(rows, "train/total_loss").x) == 15
    assert curve(rows, "val/mAP_50").x.tolist() == [1.0, 2.0, 3.0]
    assert curve(rows, "val/mAP_50", "step").x.tolist() == [5.0, 10.0, 15.0]
    assert curve(rows, "val/mAP_50", "time").x[0] == 4 * 60


def test_the_best_is_that_of_an_epoch_s_end_in_either_direction(path: Path) -> None:
    rows = Rows(path)
    rows.advance()
    values = [json.loads(line).get("val/mAP_50") for line in path.read_text().splitlines()]
    known = [value for value in values if value is not None]
    assert best_point(rows, "val/mAP_50", "epoch", minimize=False) == (3.0, max(known))
    assert best_point(rows, "val/mAP_50", "epoch", minimize=True) == (1.0, min(known))


def test_smoothing_is_the_weighted_mean_of_all_before() -> None:
    values = np.array([1.0, np.nan, 3.0, 5.0])
    out = smooth(values, 0.5)
    assert out[0] == 1.0
    assert np.isnan(out[1])
    assert np.isclose(out[2], (0.25 * 1 + 0.5 * 3) / 0.75)  # weights of 1 and 3: w(1-w), (1-w)
    assert np.isclose(out[3], (0.125 * 1 + 0.25 * 3 + 0.5 * 5) / 0.875)
    assert smooth(values, 0.0) is values


def test_thinning_keeps_every_spike() -> None:
    x, y = np.arange(100_000.0), np.zeros(100_000)
    y[54_321], y[12_345] = 9.0, -9.0
    thin_x, thin_y = thin(x, y, 1_000)
    assert len(thin_x) <= 1_002
    assert (thin_y.max(), thin_y.min()) == (9.0, -9.0)
    assert (thin_x[0], thin_x[-1]) == (0.0, 99_999.0)


def test_every_metric_has_one_chart() -> None:
    names = ["train/total_loss", "val/mAP_50", "val/canopy_iou", "val/shade_distribution_score", "lr/default"]
    found = grouped([*names, "train/grad_norm", "val/something", "system/cpu_percent"], GROUPS)
    assert found == {
        "Losses": ["train/total_loss"],
        "Detection": ["val/mAP_50"],
        "Canopy": ["val/canopy_iou"],
        "Shade": ["val/shade_distribution_score"],
        "Learning rate": ["lr/default"],
        "Gradient norm": ["train/grad_norm"],
        "Other metrics": ["val/something"],
    }
