"""`cabruca compare RUN RUN...`: metrics side by side, and where the configurations differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cabruca.cli.looks import say
from cabruca.cli.tables import aligned, json_option, say_json

if TYPE_CHECKING:
    from cabruca.tracking.comparison import Comparison


@click.command(short_help="Compare runs.")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--output-dir", default="outputs", show_default=True, metavar="DIR", help="Where names are looked for.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="GLOB", help="Only these metrics, e.g. 'val/mAP*' (repeat)."
)
@json_option
def compare(runs: Sequence[str], output_dir: str, metrics: Sequence[str], as_json: bool) -> None:
    """Lay two runs or more side by side; RUN is a folder, or a name below --output-dir.

    For each run the numbers at its best epoch (by its own monitored metric) and at its last one.
    """
    if len(runs) < 2:
        raise click.UsageError("one run is given and it takes two to compare; name another")
    from cabruca.tracking.comparison import compare as compare_stories
    from cabruca.tracking.runs import find_run, read_story

    stories = [read_story(find_run(run, output_dir)) for run in runs]
    names = [story.name for story in stories]
    alike = {name for name in names if names.count(name) > 1}  # each of these as it was asked for
    stories = [replace(one, name=run) if one.name in alike else one for one, run in zip(stories, runs, strict=True)]
    found = compare_stories(stories, metrics)
    if as_json:
        say_json(found.to_dict())
    else:
        say("\n".join(_lines(found)), head=True)


def _lines(found: Comparison) -> list[str]:
    columns = range(1, 1 + 2 * len(found.names))
    head = ["metric", *(f"{name} {which}" for name in found.names for which in ("best", "last"))]
    epochs = zip(found.best_epoch, found.epochs, strict=True)
    rows: list[list[Any]] = [["epoch", *(n for pair in epochs for n in pair)]]
    rows += [[name, *(n for pair in row for n in pair)] for name, row in found.metrics.items()]
    lines = [aligned([head, *rows], right=columns), ""]
    if not found.settings:
        return [*lines, "the configurations are the same"]
    settings = [["setting", *found.names], *([key, *values] for key, values in found.settings.items())]
    return [*lines, aligned(settings)]
