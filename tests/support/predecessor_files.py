"""The predecessor's README and table of values, read as they stand: what must go on loading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cabruca.config.load import parse_value

CONFIGS = ("training_config.yaml", "training_config_light.yaml")
SPLITS = ("train", "val", "test")


def snippets(folder: Path) -> list[str]:
    """Every configuration in the README: its yaml fences, and the python fences that hold keys (not commands)."""
    text = (folder / "README_TRAINING.md").read_text(encoding="utf-8")
    found = []
    for language, body in re.findall(r"```(\w+)\n(.*?)```", text, flags=re.DOTALL):
        if language in ("yaml", "python"):
            lines = [line for line in body.splitlines() if not line.startswith("python ")]
            found.append("\n".join(lines) + "\n")
    return found


def values(folder: Path, column: int) -> dict[str, Any]:
    """Dotted key -> value of one of the two files (0: standard, 1: light), from the table in VALUES.md."""
    found: dict[str, Any] = {}
    for line in (folder / "VALUES.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) != 3 or cells[0] == "key" or set(cells[0]) <= {"-", "|"}:
            continue
        text = cells[1] if cells[1 + column] == "same" else cells[1 + column]
        if text != "-":
            found.update(_row(cells[0], text))
    return found


def _row(keys: str, text: str) -> dict[str, Any]:
    if keys == "optimizer.param_groups":  # "backbone lr 1e-5 wd 0.01; heads lr ..."
        groups = [re.fullmatch(r"(\w+) lr (\S+) wd (\S+)", part.strip()) for part in text.split(";")]
        return {keys: [{"name": g[1], "lr": float(g[2]), "weight_decay": float(g[3])} for g in groups if g]}
    if "_annotations" in keys:  # "data/annotations/{train,val,test}.json"
        return {f"data.{split}_annotations": re.sub(r"\{.*\}", split, text) for split in SPLITS}
    names = re.split(r" / |, ", keys)
    prefix = names[0].rpartition(".")[0]
    dotted = [names[0], *(f"{prefix}.{name}" if prefix else name for name in names[1:])]
    plain = re.sub(r"\s*\([^)]*\)", "", text)
    parts = re.split(r" / |, (?![^\[]*\])", plain)
    assert len(parts) <= len(dotted), f"VALUES.md row not understood: {keys} | {text}"
    return {key: parse_value(part) for key, part in zip(dotted, parts, strict=False) if part != "-"}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections."""
    out: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        here = out
        for section in sections:
            here = here.setdefault(section, {})
        here[last] = value
    return out
