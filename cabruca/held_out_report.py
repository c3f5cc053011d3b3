"""test/report.md: what the held-out test found, for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cabruca.words import counted

Numbers = Mapping[str, float | None]

_COUNT = re.compile(r"(?P<what>.+)_count(?P<kind>_true|_accuracy|)$")
_DETECTION = re.compile(r"(?P<what>(bbox_|segm_)?mAP(_50|_75)?)(/(?P<of>.+))?$")
_COVER = re.compile(r"(iou/.+|mIoU|canopy.*)$")
_LOSS = re.compile(r"(total_loss|loss_.+)$")


@dataclass(frozen=True)
class Facts:
    """What a report says beside the numbers.

    Attributes:
        run: name of the run. version: of cabruca.
        checkpoint: its file; epoch: epochs completed in it.
        images, annotations: the test set. also: what else its annotations were used for, '' for nothing.
        monitor: the monitored metric, with its `val/`; validated: its value in the checkpoint, None: undefined.
        pictures: files, relative to the report.
    """

    run: str
    version: str
    checkpoint: str
    epoch: int
    images: str
    annotations: str
    monitor: str
    validated: float | None
    pictures: Sequence[str] = ()
    also: str = ""


def report(facts: Facts, numbers: Numbers) -> str:
    """Markdown: every number stands in one table, those that belong together side by side.

    Args:
        numbers: metric -> value, None where it is undefined.
    """
    left = dict(numbers)
    parts = [
        _head(facts, numbers),
        _section("Trees counted", _counts(_take(left, _COUNT))),
        _section("Crowns found", _by_class(_take(left, _DETECTION))),
        _section("Land cover and canopy", _beside_truth(_take(left, _COVER))),
        _section("Losses", _beside_truth(_take(left, _LOSS))),
        _section("The plot", _beside_truth(left)),
        _section("Pictures", [f"![{picture}]({picture})" for picture in facts.pictures]),
    ]
    return "\n".join(part for part in parts if part)


def _head(facts: Facts, numbers: Numbers) -> str:
    name = facts.monitor.removeprefix("val/")
    lines = [
        f"# Test of {facts.run}\n",
        f"- network: `{facts.checkpoint}`, after {counted(facts.epoch, 'epoch')} (cabruca {facts.version})",
        f"- test set: `{facts.annotations}`, pictures in `{facts.images}`",
    ]
    if facts.also:
        lines.append(f"- **not held out**: the same file is the {facts.also} set")
    if facts.monitor.startswith("val/") and name in numbers:
        lines.append(f"- {name}: **{_number(numbers[name])}** here, {_number(facts.validated)} in validation")
    return "\n".join([*lines, "- `-`: undefined, there is no truth of that kind\n"])


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}\n", *lines, ""]) if lines else ""


def _take(numbers: dict[str, float | None], pattern: re.Pattern[str]) -> dict[str, float | None]:
    """Take the names that fit out of `numbers`."""
    return {name: numbers.pop(name) for name in list(numbers) if pattern.match(name)}


def _counts(numbers: Numbers) -> list[str]:
    kinds = {"truth": "_count_true", "found": "_count", "accuracy": "_count_accuracy"}
    things = sorted(
        {found["what"] for name in numbers if (found := _COUNT.match(name))}, key=lambda t: (t == "total", t)
    )
    rows = [[t, *(_number(numbers.get(t + end)) for end in kinds.values())] for t in things]
    told = ["Summed over the pictures: a tree that two of them show counts in both.", ""]
    return [*told, *_table(["trees", *kinds], rows)] if rows else []


def _by_class(numbers: Numbers) -> list[str]:
    split = [found for name in numbers if (found := _DETECTION.match(name))]
    classes = sorted({found["of"] for found in split if found["of"]})
    measures = list(dict.fromkeys(found["what"] for found in split))
    rows = [[m, *(_number(numbers.get(f"{m}/{c}" if c else m)) for c in ("", *classes))] for m in measures]
    return _table(["", "all", *classes], rows)


def _beside_truth(numbers: Numbers) -> list[str]:
    """A row a name; `x_true` stands beside `x`."""
    truths = {name for name in numbers if name.endswith("_true") and name.removesuffix("_true") in numbers}
    rows = [
        [n, _number(v), *([_number(numbers[f"{n}_true"]) if f"{n}_true" in truths else ""] if truths else [])]
        for n, v in numbers.items()
        if n not in truths
    ]
    return _table(["", "found", *(["truth"] if truths else [])], rows)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---", *["---:"] * (len(titles) - 1)], *rows)]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(int(value)) if value == int(value) and abs(value) >= 2 else f"{value:.4g}"
