"""docs/predecessor.md: every line of the predecessor's README and every fault, with ours and the test that shows it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from predecessor_items import items

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "predecessor.md"


def rows(heading: str) -> list[list[str]]:
    """Cells of the table under `## heading`, without its head."""
    part = PAGE.read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def missing(cell: str) -> list[str]:
    """Tests and files that the cell names and that are not there; a cell that names none is itself returned."""
    named = re.findall(r"`((?:tests|experiments)/[^`]+)`", cell)
    gone = []
    for name in named:
        path, _, function = name.partition("::")
        if not (ROOT / path).is_file() or (function and function not in functions(ROOT / path)):
            gone.append(name)
    return gone if named else [cell]


@pytest.mark.parametrize("heading", ["Commands, keys and claims", "The eighteen faults"])
def test_nothing_is_blank_and_every_named_test_is_there(heading: str) -> None:
    table = rows(heading)
    assert len(table) >= 18
    for cells in table:
        assert len(cells) == 3, cells
        assert all(len(cell) > 2 for cell in cells[1:]), cells
        assert missing(cells[2]) == [], cells


def test_every_item_of_its_readme_is_in_the_table(predecessor: Path) -> None:
    told = [cells[0].strip("`") for cells in rows("Commands, keys and claims")]
    assert told == items(predecessor)


def test_every_fault_is_in_the_table(predecessor: Path) -> None:
    listed = re.findall(r"^(\d+)\. ", (predecessor / "FAULTS.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [cells[0] for cells in rows("The eighteen faults")] == listed
    assert len(listed) == 18


def test_a_test_that_is_gone_would_be_seen() -> None:
    assert missing("`tests/architecture/test_predecessor_page.py::test_that_never_was`") != []
    assert missing("none") == ["none"]
