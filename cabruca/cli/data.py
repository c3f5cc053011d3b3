"""`cabruca data synth|check`: draw a practice plot; look for what would spoil a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cabruca.cli.options import read_assignments, set_option
from cabruca.commands import command
from cabruca.errors import DataError

if TYPE_CHECKING:
    from cabruca.data.synthetic import PlotFiles


@click.group(short_help="Draw a practice plot, or check a data set.")
def data() -> None:
    """Make and check data."""


@data.command()
@click.option(
    *("--output-dir", "--out", "output_dir"),
    required=True,
    metavar="DIR",
    help="Where pictures, masks and annotations are written.",
)
@click.option("--size-px", type=click.IntRange(min=128), default=1024, show_default=True, help="Side of the plot.")
@click.option(
    "--gsd-m",
    type=click.FloatRange(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="Ground sampling distance, metres a pixel.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same plot.")
def synth(output_dir: str, size_px: int, gsd_m: float, seed: int) -> None:
    """Draw a georeferenced plot of cacao under shade trees, with exact truth.

    GeoTIFFs (EPSG:31984), semantic masks, COCO annotations with crown diameters, and crowns as GeoJSON. Its eastern
    part is held out for validation.
    """
    from cabruca.data.synthetic import draw_plot

    files = draw_plot(output_dir, size_px=size_px, gsd_m=gsd_m, seed=seed)
    click.echo(f"drawn: {files.num_train_crowns} crowns to train on, {files.num_val_crowns} held out, in {output_dir}")
    click.echo(f"train on it: {train_command(files)}")


@data.command()
@click.option("--config", "config_path", required=True, metavar="FILE", help="The configuration that names the data.")
@set_option
def check(config_path: str, assignments: Sequence[str]) -> None:
    """Look at every picture and annotation that a configuration names.

    Missing files, wrong sizes, boxes outside, unmapped categories, empty pictures, class balance, crowns a tile against
    the detection cap, the same picture or ground in training and validation. Exits with 2 where something must be
    mended.
    """
    from cabruca.config.load import load_config
    from cabruca.data.check import full_check

    config = load_config(config_path, read_assignments(assignments))
    report = full_check(config)
    click.echo(str(report))
    if not report.ok:
        count = len(report.errors)
        raise DataError(
            f"the data has {count} error{'s' if count > 1 else ''}; mend what is listed above, then check again"
        )


def train_command(files: PlotFiles) -> str:
    """The line that trains the light preset on the plot."""
    keys: dict[str, Path] = {
        "data.train_dir": files.images_dir,
        "data.val_dir": files.images_dir,
        "data.train_annotations": files.train_annotations,
        "data.val_annotations": files.val_annotations,
    }
    sets = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    return command("train", "--config", "configs/training_config_light.yaml", *sets)
