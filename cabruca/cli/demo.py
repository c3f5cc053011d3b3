"""`cabruca demo`: a practice plot drawn, learnt and measured."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Draw, train and evaluate in minutes.")
@click.option("--output-dir", default="outputs/demo", show_default=True, metavar="DIR", help="Where everything goes.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of plot and training.")
@click.option("--quiet", is_flag=True, help="Only warnings, errors and the summary.")
def demo(output_dir: str, seed: int, quiet: bool) -> int:
    """Draw a georeferenced practice plot, train the light preset on it, evaluate on its held-out part.

    Exits 1 when the numbers fall under their floors.
    """
    from cabruca.demo import run_demo

    return run_demo(Path(output_dir), seed, quiet)
