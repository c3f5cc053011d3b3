"""`evaluate` with pictures: what is drawn is of the same pass, and of the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_farm import farm_config, write_farm
from memory_reporter import MemoryReporter

from cabruca.evaluation import evaluate
from cabruca.findings import Findings
from cabruca.runtime import Runtime
from cabruca.task import CabrucaTask
from cabruca.tracking.charting import read_findings
from cabruca.tracking.charts import CHARTS
from cabruca.train.checkpoint import FORMAT_VERSION
from cabruca.train.loop import train


def test_pictures_are_of_the_numbers_that_are_told(tmp_path: Path) -> None:
    farm = write_farm(tmp_path / "farm")
    config = farm_config(farm, tmp_path, {"training.num_epochs": 1, "model.pretrained": "none"})
    reporter = MemoryReporter()
    train(config, CabrucaTask(config), runtime=Runtime.single(), reporter=reporter)
    record = reporter.records[-1]
    torch.save({"format_version": FORMAT_VERSION, **reporter.state}, tmp_path / "c.pth")
    out = tmp_path / "drawn"
    numbers = evaluate(
        tmp_path / "c.pth",
        farm / "images",
        farm / "farm.json",
        device="cpu",
        score_threshold=0.0,
        num_pictures=1,
        pictures_dir=out,
        plots_dir=out,
    )
    assert {p.stem for p in out.glob("*.png") if not p.stem.startswith("val_")} == set(CHARTS)
    assert len(list(out.glob("val_*.png"))) == 1
    told = read_findings(out)
    assert told is not None
    found = told["findings"]
    assert isinstance(found, Findings)
    for k, name in enumerate(found.classes):
        short = name.removesuffix("_tree")
        assert found.counts[:, k].sum(axis=0).tolist() == [numbers[f"{short}_count_true"], numbers[f"{short}_count"]]
    for curve in found.curves:
        assert curve.precision.mean() == pytest.approx(numbers[f"{curve.kind}_mAP_50/{curve.name}"], abs=1e-5)
    assert found.pixels is not None
    share = np.trace(found.pixels) / found.pixels.sum()
    assert 0 <= share <= 1
    assert record.findings is not None, "the validation of a training hands them on"
    assert record.findings.counts[:, :, 0].sum() == record.metrics["val/total_count_true"]
    json.loads((out / "findings.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
