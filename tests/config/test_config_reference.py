"""docs/configuration.md is what the schema says, and the schema says something of every key."""

from __future__ import annotations

from pathlib import Path

import pytest

from cabruca.config import schema
from cabruca.config.keys import leaves
from cabruca.config.reference import field_comments, page

DOCS = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
SECTIONS = [value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, schema.Section)]


def test_the_page_is_current() -> None:
    current = DOCS.read_text(encoding="utf-8")
    assert current == page(), "run: python -m cabruca.config.reference > docs/configuration.md"


def test_every_key_is_on_the_page() -> None:
    text = page()
    assert all(f"| `{key}` |" in text for key, _ in leaves())


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_every_field_is_explained_in_place(section: type[schema.Section]) -> None:
    inner = {n for n, f in section.model_fields.items() if isinstance(f.annotation, type) and f.annotation in SECTIONS}
    assert [name for name, text in field_comments(section).items() if not text and name not in inner] == []
