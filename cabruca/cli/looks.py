"""Colours on a terminal and nowhere else: not in a pipe, not where NO_COLOR is set (no-color.org) or TERM is dumb."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

import click

WORDS = {
    **dict.fromkeys(("OK", "intact", "valid"), "green"),
    **dict.fromkeys(("WARNING", "warning", "no sidecar", "whole, not vouched for"), "yellow"),
    **dict.fromkeys(("ERROR", "error", "damaged", "missing"), "red"),
}
"""Words that carry a verdict -> their colour."""


def coloured(*, err: bool = False) -> bool:
    """Whether stdout (or stderr) is a terminal that may show colours."""
    stream = sys.stderr if err else sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say(text: str, *, head: bool = False, verdicts: Mapping[str, str] | None = None) -> None:
    """Print lines.

    Args:
        head: the first line is the head of a table. verdicts: words -> colours, at the beginning or end of a line.
    """
    if coloured():
        lines = [_painted(line, verdicts or {}) for line in text.splitlines()]
        if head and lines:
            lines[0] = click.style(lines[0], bold=True)
        text = "\n".join(lines)
    click.echo(text, color=coloured())


def say_error(text: str) -> None:
    """`cabruca: error: ...` on stderr."""
    start = "cabruca: error:"
    click.echo(f"{click.style(start, fg='red', bold=True) if coloured(err=True) else start} {text}", err=True)


def _painted(line: str, verdicts: Mapping[str, str]) -> str:
    for word, colour in verdicts.items():
        found = re.match(rf"(\s*)({re.escape(word)})(?=[\s:]|$)(.*)$", line)
        if found:
            return found[1] + click.style(word, fg=colour) + found[3]
        if re.search(rf"(^|\s\s|: ){re.escape(word)}$", line):
            return line[: -len(word)] + click.style(word, fg=colour)
    return line
