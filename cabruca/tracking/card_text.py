"""Prose and tables of a model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INTENDED = (
    "- Find, outline and count crowns, and map land cover, in drone and aerial imagery of cacao agroforestry that",
    "  looks like the training data: the same bands, about the same ground sampling distance, season and light.",
    "- For inventories, research and planning by people who check a sample of the result on the ground.",
    "- Not for: deciding alone about land rights, certification, payment or felling; imagery of other forests or crops",
    "  without a test on labels from there; other scales than those below.",
)

CONSIDERATIONS = (
    "Imagery may show homes, people and farms whose owners did not ask to be mapped: ask them before maps are shared.",
    "Cabruca shelters protected trees; exact positions of rare species should not be published.",
)


def section(title: str, lines: Sequence[str]) -> str:
    """A heading and what stands under it."""
    return "\n".join([f"## {title}\n", *lines, ""])


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown; columns of numbers, those behind the first, at the right where they have titles."""
    cells = [titles, ["---", *["---:" if titles[-1] else "---"] * (len(titles) - 1)], *rows]
    return [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in cells]


def number(value: Any) -> str:
    """Four digits, `-` where it is not known."""
    return "-" if not isinstance(value, int | float) else f"{value:.4g}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
