"""Everything the predecessor's README says, cut into items: commands, keys, claims, files, rows of its speed table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FENCE = re.compile(r"```(\w*)\n(.*?)```", flags=re.DOTALL)


def items(folder: Path) -> list[str]:
    """Each once, in the README's order."""
    text = (folder / "README_TRAINING.md").read_text(encoding="utf-8")
    found: list[str] = []
    position = 0
    for fence in FENCE.finditer(text):
        found += _claims(text[position : fence.start()])
        found += _fenced(fence[1], fence[2])
        position = fence.end()
    found += _claims(text[position:])
    return list(dict.fromkeys(found))


def _claims(prose: str) -> Iterator[str]:
    """`- **Name**: claim`, `1. **Name**: claim`, rows of tables."""
    for line in prose.splitlines():
        stripped = re.sub(r"^(-|\d+\.) ", "", line.strip())
        if re.match(r"(-|\d+\.) ", line.strip()) and not stripped.endswith(":"):
            yield stripped.replace("**", "").replace("`", "")
        elif line.startswith("|") and not set(line) <= set("|- ") and "Configuration" not in line:
            yield " ".join(cell.strip() for cell in line.strip("|").split("|"))


def _fenced(language: str, body: str) -> Iterator[str]:
    if language == "bash":
        yield from _commands(body)
    elif language in ("yaml", "python"):
        yield from _commands("\n".join(line for line in body.splitlines() if line.startswith("python ")))
        keys = [line for line in body.splitlines() if not line.startswith("python ")]
        yield from _keys(keys)
    elif not language:
        yield from (re.sub(r"^[│├└─ ]+", "", line).strip() for line in body.splitlines() if line.strip())


def _commands(body: str) -> Iterator[str]:
    for line in re.sub(r"\\\n\s*", "", body).splitlines():
        command = re.sub(r"\s+# .*$", "", line).strip()
        if command and not command.startswith("#"):
            yield command


def _keys(lines: list[str]) -> Iterator[str]:
    """`section.key: value` of flat two-level YAML; items of a list under their key."""
    section = ""
    for line in lines:
        bare = re.sub(r"\s+# .*$", "", line).rstrip()
        match = re.match(r"^(\s*)(?:- )?(\w+):\s*(.*)$", bare)
        if not match or bare.lstrip().startswith("#"):
            continue
        indent, key, value = match.groups()
        if not indent and not value:
            section = key
        elif value:
            inside = f"{section}." if indent else ""
            listed = "param_groups[]." if len(indent) >= 4 else ""
            yield f"{inside}{listed}{key}: {value}"
