"""What is longer than its card or cell can still be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monitor_files import draw_run, draw_study

Open = Callable[..., Any]


def test_a_device_with_a_long_name_is_told_whole_beside_its_label(open_page: Open, tmp_path: Path) -> None:
    run = draw_run(tmp_path / "outputs", "one", epochs=2)
    facts = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**facts, "gpu": "NVIDIA RTX 6000 Ada [Generation]"}))
    cards = {card.label: card for card in open_page("run").metric}
    assert cards["Device"].value == "NVIDIA RTX 6000 Ada [Generation]"
    assert cards["Device"].help == "NVIDIA RTX 6000 Ada \\[Generation\\]"
    assert not cards["Elapsed"].help


def test_why_a_trial_ended_has_a_wide_column(open_page: Open, tmp_path: Path) -> None:
    draw_study(tmp_path / "outputs", metrics=1)
    table = open_page("studies").dataframe[0]
    assert json.loads(table.proto.columns)["why it ended"]["width"] == "large"
    assert "RuntimeError" in " ".join(table.value["why it ended"])
