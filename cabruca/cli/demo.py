"""`cabruca demo`: a practice plot drawn, a study of it, the winner trained and measured."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Draw, train and evaluate in minutes.")
@click.option("--output-dir", default="outputs/demo", show_default=True, metavar="DIR", help="Where everything goes.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of plot and training.")
@click.option("--trials", type=click.IntRange(min=0), default=6, show_default=True, help="Of the study; 0: no study.")
@click.option("--quiet", is_flag=True, help="Only warnings, errors and the summary.")
@click.option("--json", "as_json", is_flag=True, help="Only warnings, errors, and the summary as one JSON object.")
def demo(*, output_dir: str, seed: int, trials: int, quiet: bool, as_json: bool) -> int:
    """Draw a georeferenced practice plot, search the light preset's best settings in a small study on local Ray, train
    the winner, evaluate on the part of the plot that was held out.

    Exits 1 when the numbers fall under their floors.
    """
    from cabruca.demo import run_demo

    return run_demo(Path(output_dir), seed, quiet or as_json, trials, json=as_json)
