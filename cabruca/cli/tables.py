"""Plain text tables and numbers for people: aligned columns that stay whole in a pipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object, on one line, instead of text.")
"""`--json` of the commands that look at something."""

quiet_option = click.option("--quiet", is_flag=True, help="Only warnings and errors; the exit code tells the rest.")
"""`--quiet` of the commands that do something."""


def aligned(rows: Sequence[Sequence[Any]], *, right: Sequence[int] = (), indent: str = "") -> str:
    """Rows as lines; every column as wide as its longest cell, columns of numbers at the right.

    Args:
        right: indices of the columns that are set at the right.
    """
    cells = [[shown(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))] if cells else []
    lines = (
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def shown(value: Any) -> str:
    """A cell: `-` for what is not known, four digits of a fraction, lists and mappings as JSON."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e-3 or abs(value) >= 1e5 else f"{value:.4f}"
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value) if isinstance(value, bool) else str(value)


def size(count: int) -> str:
    """Bytes as people read them."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def say_json(value: Mapping[str, Any]) -> None:
    """One object on one line of stdout, strict JSON."""
    from cabruca.tracking.files import to_json

    click.echo(to_json(value))
