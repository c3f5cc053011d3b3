"""Numbers with their nouns. A leaf."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """`1 picture`, `3 pictures`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
