"""One colour a crown class, wherever it is shown."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path

import pytest

from cabruca.colours import CLASS_COLOURS, colours_of, rgb_of

PACKAGE = Path(__file__).parents[1] / "cabruca"


def test_cacao_and_shade_have_theirs_whatever_stands_beside_them() -> None:
    cacao, shade, third, fourth, *_ = CLASS_COLOURS
    expected = {"cacao_tree": cacao, "shade_tree": shade, "jaqueira": third, "oil_palm": fourth}
    for order in permutations(expected):
        found = colours_of(order)
        assert list(found) == list(order)
        assert dict(found) == expected
    assert colours_of(["shade", "cacao"]) == {"shade": shade, "cacao": cacao}
    assert colours_of(["oil_palm"]) == {"oil_palm": third}


def test_classes_of_any_number_have_one_each() -> None:
    names = [f"class_{k}" for k in range(20)]
    assert set(colours_of([*names, "cacao_tree"]).values()) <= set(CLASS_COLOURS)
    assert colours_of([]) == {}


def test_a_colour_is_three_numbers() -> None:
    assert rgb_of("#0a10ff") == (10, 16, 255)


SHOWING = ("pictures", "tracking/charts", "tracking/plots", "predict/report_pictures", "data/stats_plots",
           "monitor/map_figure")  # fmt: skip


@pytest.mark.parametrize("file", SHOWING)
def test_whoever_shows_classes_asks_the_table(file: str) -> None:
    text = (PACKAGE / f"{file}.py").read_text(encoding="utf-8")
    assert "colours_of(" in text
    assert not re.search(r"(cacao|shade|CACAO|SHADE)\w*['\"]?\s*[:=,]\s*['\"]#", text)
