"""`cabruca data prepare|synth|check|stats`: make data of orthomosaics or draw a plot, look for faults, count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cabruca.cli.data_prepare import prepare
from cabruca.cli.looks import WORDS, say
from cabruca.cli.options import read_assignments, set_option
from cabruca.cli.tables import aligned, json_option, quiet_option, say_json
from cabruca.commands import command
from cabruca.errors import DataError

if TYPE_CHECKING:
    from cabruca.data.stats_numbers import SetStats, Spread
    from cabruca.data.synthetic import PlotFiles


@click.group(short_help="Draw a practice plot, check or count a data set.")
def data() -> None:
    """Make, check and count data."""


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
@quiet_option
@json_option
def synth(*, output_dir: str, size_px: int, gsd_m: float, seed: int, quiet: bool, as_json: bool) -> None:
    """Draw a georeferenced plot of cacao under shade trees, with exact truth.

    GeoTIFFs (EPSG:31984), semantic masks, COCO annotations with crown diameters, and crowns as GeoJSON. Its eastern
    part is held out for validation.
    """
    from cabruca.data.synthetic import draw_plot

    files = draw_plot(output_dir, size_px=size_px, gsd_m=gsd_m, seed=seed)
    if as_json:
        say_json({**vars(files), "train": train_command(files)})
        return
    if quiet:
        return
    click.echo(f"drawn: {files.num_train_crowns} crowns to train on, {files.num_val_crowns} held out, in {output_dir}")
    click.echo(f"train on it: {train_command(files)}")


@data.command()
@click.option("--config", "config_path", required=True, metavar="FILE", help="The configuration that names the data.")
@set_option
@quiet_option
@json_option
def check(config_path: str, assignments: Sequence[str], quiet: bool, as_json: bool) -> None:
    """Look at every picture and annotation that a configuration names.

    Missing files, wrong sizes, boxes outside, unmapped categories, empty pictures, class balance, crowns a tile against
    the detection cap, the same picture or ground in training and validation. Exits with 2 where something must be
    mended.
    """
    from cabruca.config.load import load_config
    from cabruca.data.check import full_check

    config = load_config(config_path, read_assignments(assignments))
    report = full_check(config)
    if as_json:
        found = {"errors": report.errors, "warnings": report.warnings, "facts": report.facts}
        say_json({"ok": report.ok, **found})
    else:
        lines = [line for line in str(report).splitlines() if not quiet or _weighs(line)]
        if lines:
            say("\n".join(lines), verdicts=WORDS)
    if not report.ok:
        count = len(report.errors)
        raise DataError(
            f"the data has {count} error{'s' if count > 1 else ''}; mend what is listed above, then check again"
        )


def _weighs(line: str) -> bool:
    """Whether a line of a report is a warning or an error."""
    return line.lstrip().startswith(("warning:", "error:"))


@data.command()
@click.option("--config", "config_path", metavar="FILE", help="The configuration that names data and classes.")
@click.option("--images", metavar="DIR", help="Without --config: the images folder of one set.")
@click.option("--annotations", metavar="COCO.json", help="Without --config: its annotation file.")
@click.option("--no-land-cover", is_flag=True, help="Leave semantic pixels out, for which every picture is read.")
@click.option("--output-dir", "--out", "output_dir", metavar="DIR", help="Write a picture of plots for each set here.")
@set_option
@quiet_option
@json_option
def stats(
    *,
    config_path: str | None,
    images: str | None,
    annotations: str | None,
    no_land_cover: bool,
    output_dir: str | None,
    assignments: Sequence[str],
    quiet: bool,
    as_json: bool,
) -> None:
    """Count what is in a data set: classes, crown sizes, crowns a picture and a tile, resolution, land cover.

    With --config both sets of a configuration under its classes; with --images and --annotations one set as it stands.
    """
    if (config_path is None) == (images is None and annotations is None) or (images is None) != (annotations is None):
        raise click.UsageError("give --config FILE, or --images DIR with --annotations FILE")
    from cabruca.config.load import load_config
    from cabruca.data.stats import config_stats, plain_stats

    config = load_config(config_path, read_assignments(assignments))
    if images is not None and annotations is not None:
        found = [plain_stats(images, annotations, config)]
    else:
        found = config_stats(config, land_cover=not no_land_cover)
    if as_json:
        say_json({"sets": [one.to_dict() for one in found]})
    elif not quiet:
        click.echo("\n\n".join("\n".join(stats_lines(one)) for one in found))
    if output_dir is not None:
        _draw(found, Path(output_dir), told=not as_json and not quiet)


def _draw(found: Sequence[SetStats], folder: Path, *, told: bool) -> None:
    from cabruca.data.stats_plots import draw_stats

    folder.mkdir(parents=True, exist_ok=True)
    for one in found:
        (folder / f"{one.name}.png").write_bytes(draw_stats(one))
    if told:
        click.echo(f"plots: {', '.join(str(folder / f'{one.name}.png') for one in found)}")


def stats_lines(one: SetStats) -> list[str]:
    """A set's numbers as lines of text; spreads as `min / quartile / median / quartile / max`."""
    resolution = f"{spread(one.gsd_m)} m a pixel" if one.gsd_m else "unknown"
    unknown = f" ({one.gsd_unknown} unknown)" if one.gsd_m and one.gsd_unknown else ""
    head = ["class", "crowns", "share", "masks", "pictures", "diameter px", "diameter m"]
    total = max(1, sum(found.crowns for found in one.classes.values()))
    rows = [
        [
            name,
            c.crowns,
            f"{c.crowns / total:.1%}",
            c.with_mask,
            c.pictures,
            spread(c.diameter_px),
            spread(c.diameter_m),
        ]
        for name, c in one.classes.items()
    ]
    lines = [
        f"{one.name}: {one.pictures} picture(s), {one.megapixels:.1f} megapixels, {resolution}{unknown}",
        aligned([head, *rows], right=(1, 2, 3, 4), indent="  "),
        f"  crowns a picture: {spread(one.crowns_per_picture)}",
        f"  crowns a tile of {one.tile_size_px} px: {spread(one.crowns_per_tile)}; {one.empty_tiles:.0%} have none",
    ]
    if one.crowds or one.ignored:
        lines.append(f"  not counted: {one.crowds} group(s), {one.ignored} of ignored categories")
    if one.land_cover is None or one.class_weights is None:
        return lines
    cover = [[name, f"{share:.2%}"] for name, share in one.land_cover.items()]
    weights = ", ".join(f"{weight:g}" for weight in one.class_weights)
    return [
        *lines,
        f"  land cover, share of the known pixels ({one.unknown_cover:.1%} of all are unknown):",
        aligned(cover, right=(1,), indent="    "),
        f"  loss.semantic_class_weights: [{weights}]  # median frequency balancing, if rare classes are missed",
    ]


def spread(values: Spread | None) -> str:
    """Five numbers, one where all are the same, `-` where there is nothing."""
    if values is None:
        return "-"
    if values.min == values.max:
        return f"{values.min:.3g}"
    five = (values.min, values.q1, values.median, values.q3, values.max)
    return " / ".join(f"{value:.3g}" for value in five)


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


data.add_command(prepare)
