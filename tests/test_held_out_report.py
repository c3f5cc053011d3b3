"""test/report.md: every number once, what belongs together side by side."""

from __future__ import annotations

import re
from dataclasses import replace

from cabruca.held_out_report import Facts, report

FACTS = Facts(
    run="plot_7",
    version="1.0",
    checkpoint="checkpoint_best.pth",
    epoch=12,
    images="data/test",
    annotations="data/test.json",
    monitor="val/mAP_50",
    validated=0.625,
    pictures=["pictures/test_1.png"],
)

NUMBERS = {
    "mAP": 0.25,
    "mAP_50": 0.5,
    "bbox_mAP_50": 0.75,
    "bbox_mAP_50/cacao_tree": 0.125,
    "bbox_mAP_50/shade_tree": None,
    "cacao_count": 120.0,
    "cacao_count_true": 100.0,
    "cacao_count_accuracy": 0.8,
    "total_count": 130.0,
    "total_count_true": 111.0,
    "total_count_accuracy": 0.8288,
    "canopy_cover": 0.71,
    "canopy_cover_true": 0.73,
    "iou/cacao_tree": 0.61,
    "mIoU": 0.31,
    "loss_instance/box": 0.9,
    "total_loss": 2.25,
    "clark_evans": 1.31,
    "clark_evans_true": 1.42,
    "shade_trees_per_ha": 34.0,
}


def tables(text: str) -> dict[str, list[list[str]]]:
    """Title -> rows of cells, titles of the columns first."""
    found: dict[str, list[list[str]]] = {}
    for part in text.split("\n## ")[1:]:
        title, *lines = part.splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        found[title] = [row for row in rows if set(row[0]) != {"-"} or len(row[0]) < 3]
    return found


def test_each_table_has_its_numbers() -> None:
    found = tables(report(FACTS, NUMBERS))
    assert "## Trees counted\n\nSummed over the pictures: " in report(FACTS, NUMBERS)
    assert found["Trees counted"] == [
        ["trees", "truth", "found", "accuracy"],
        ["cacao", "100", "120", "0.8"],
        ["total", "111", "130", "0.8288"],
    ]
    assert found["Crowns found"] == [
        ["", "all", "cacao_tree", "shade_tree"],
        ["mAP", "0.25", "-", "-"],
        ["mAP_50", "0.5", "-", "-"],
        ["bbox_mAP_50", "0.75", "0.125", "-"],
    ]
    assert found["Land cover and canopy"][:2] == [["", "found", "truth"], ["canopy_cover", "0.71", "0.73"]]
    assert found["Losses"] == [["", "found"], ["loss_instance/box", "0.9"], ["total_loss", "2.25"]]
    assert found["The plot"][1:] == [["clark_evans", "1.31", "1.42"], ["shade_trees_per_ha", "34", ""]]


def test_no_number_is_lost() -> None:
    distinct = {f"metric_{i}": i + 0.0625 for i in range(2, 30)} | {"iou/soil": 0.0123, "pine_count": 77.0}
    text = report(FACTS, distinct)
    for value in distinct.values():
        assert re.search(rf"\| {re.escape(f'{value:.4g}')} \|", text), value


def test_the_head_says_what_was_measured_on_what() -> None:
    text = report(FACTS, NUMBERS)
    assert "# Test of plot_7" in text
    assert "`checkpoint_best.pth`, after 12 epochs" in text
    assert "`data/test.json`, pictures in `data/test`" in text
    assert "not held out" not in text
    assert "the same file is the validation set" in report(replace(FACTS, also="validation"), NUMBERS)
    assert "mAP_50: **0.5** here, 0.625 in validation" in text
    assert "![pictures/test_1.png](pictures/test_1.png)" in text


def test_a_data_set_without_truth_gives_a_report_too() -> None:
    text = report(FACTS, dict.fromkeys(NUMBERS))
    assert "mAP_50: **-** here" in text
    assert tables(text)["Trees counted"][1] == ["cacao", "-", "-", "-"]
    assert "## " not in report(replace(FACTS, pictures=()), {})
