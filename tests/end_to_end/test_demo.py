"""`cabruca demo`, made small: what it writes, what it says, and that a network that has not learnt fails it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cabruca import demo


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PLOT_PX", 384)
    monkeypatch.setattr(demo, "EPOCHS", 2)
    monkeypatch.setattr(demo, "WINDOWS", 4)


@pytest.mark.usefixtures("small")
def test_demo_writes_summary_and_pictures_and_says_what_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FLOORS", dict.fromkeys(demo.FLOORS, 0.0))
    assert demo.run_demo(tmp_path, seed=0, quiet=False) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary) == {"epochs", "segm_mAP_50", "total_count_accuracy", "canopy_iou", "seconds"}
    assert summary["epochs"] == 2
    assert 0 < summary["seconds"] < 300
    assert 0 < summary["canopy_iou"] < 1
    assert list((tmp_path / "pictures").glob("val_*.png"))
    said = capsys.readouterr().out
    assert "EPSG:31984" in said
    steps = said.split("next:")[1].strip().splitlines()
    assert [any(word in line for word in (" evaluate ", " train ", "tensorboard --logdir")) for line in steps] == [
        True
    ] * 3
    for line in steps:
        paths = [w for w in line.split() if str(tmp_path) in w]
        assert paths
        assert all(Path(p).exists() for p in paths)


@pytest.mark.usefixtures("small")
def test_a_network_that_has_not_learnt_fails_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.run_demo(tmp_path, seed=0, quiet=True) == 1
    told = capsys.readouterr()
    assert "segm_mAP_50" in told.err
    assert "under the floor" in told.err
    assert "canopy_iou" in told.out, "the numbers are printed, also under --quiet"
    again = demo.run_demo(tmp_path, seed=0, quiet=True)  # a second demo beside the first, nothing is in its way
    assert again == 1
    assert len(list(tmp_path.glob("cabruca_*"))) == 2
