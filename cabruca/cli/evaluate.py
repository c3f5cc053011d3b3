"""`cabruca evaluate`: every metric of a checkpoint on a labelled data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cabruca.cli.options import Score, read_map, worker_options
from cabruca.cli.tables import quiet_option, say_json

if TYPE_CHECKING:
    from cabruca.operating_point import OperatingPoint


@click.command(short_help="Measure a checkpoint.")
@click.option("--checkpoint", required=True, metavar="CKPT", help="A .pth file from a run's checkpoints folder.")
@click.option("--images", required=True, metavar="DIR", help="Folder that the COCO file's names are relative to.")
@click.option("--annotations", required=True, metavar="COCO.json", help="The truth.")
@click.option(
    "--json",
    "json_path",
    metavar="OUT",
    help="Write one flat object, name -> number or null; -: on stdout, instead of the table.",
)
@click.option("--map", "entries", multiple=True, metavar="CATEGORY=CLASS", help="Dataset category -> class (repeat).")
@click.option(
    "--pictures", "pictures_dir", metavar="DIR", help="Draw truth beside prediction, curves and confusion here."
)
@click.option("--num-pictures", type=click.IntRange(min=0), default=8, show_default=True, help="Comparisons to draw.")
@click.option("--inventory", metavar="FILE", help="Trees counted on the ground, JSON or CSV, to compare with.")
@click.option(
    "--score",
    type=Score(),
    metavar="X|auto",
    help="Crowns count from this score on; auto: the checkpoint's operating point. Default: as it was trained.",
)
@click.option(
    "--tune-thresholds",
    is_flag=True,
    help="First find scores and NMS on these labels, and keep them in the checkpoint's .json.",
)
@worker_options
@quiet_option
def evaluate(  # noqa: PLR0917 (click gives them by name)
    checkpoint: str,
    images: str,
    annotations: str,
    json_path: str | None,
    entries: Sequence[str],
    pictures_dir: str | None,
    num_pictures: int,
    inventory: str | None,
    score: float | str | None,
    tune_thresholds: bool,
    workers: Any,
    address: str | None,
    dashboard: bool | None,
    quiet: bool,
) -> int:
    """Measure a checkpoint; bands, scaling, resolution and categories are those it was trained with."""
    category_map = read_map(entries)
    out = None if json_path is None or json_path == "-" else _writable(Path(json_path))
    drawn: dict[str, Any] = {}
    if pictures_dir is not None:
        drawn = {"pictures_dir": pictures_dir, "plots_dir": pictures_dir, "num_pictures": num_pictures}
    if tune_thresholds:
        if workers is not None or address is not None or score not in (None, "auto"):
            raise click.UsageError(
                "--tune-thresholds works in one process and finds the score; leave --workers, --address and --score out"
            )
        from cabruca.thresholding import tune_thresholds as tune

        point = tune(checkpoint, images, annotations, category_map=category_map)
        if not quiet and json_path != "-":
            click.echo(point_lines(point))
        score = "auto"
    from cabruca.launch import evaluate as measure

    numbers = measure(
        checkpoint,
        images,
        annotations,
        category_map=category_map,
        inventory=inventory,
        score_threshold=score,
        **drawn,
        workers=workers,
        address=address,
        dashboard=dashboard is not False,
    )
    if json_path == "-":
        say_json(numbers)
    elif not quiet:
        # first: a disk that is full by now must not cost the minutes of work
        click.echo(table(numbers))
        if short := headline(numbers):
            click.echo("\n".join(["", *short]))
    if out is not None:
        out.write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return 0


def point_lines(point: OperatingPoint) -> str:
    """What was found, for people; a line for each class, one for the overlap."""
    lines = [
        f"{name}: count from a score of {score:.3f} on (F1 {point.measured[name]['f1']:.3f}, "
        f"{point.measured[name]['count']:.0f} crowns of {point.measured[name]['count_true']:.0f})"
        for name, score in point.score.items()
    ]
    return "\n".join([*lines, f"NMS: IoU {point.nms_iou}"])


def table(numbers: Mapping[str, float | None]) -> str:
    """One line a metric: name, number; `-` where the number is undefined."""
    width = max((len(name) for name in numbers), default=0)
    return "\n".join(f"{name:<{width}}  {'-' if n is None else format(n, '.4f')}" for name, n in numbers.items())


def headline(numbers: Mapping[str, float | None]) -> list[str]:
    """What most people look for among all the numbers, in a few lines; what is undefined is left out."""
    scores = {"mAP": "mAP", "mAP_50": "mAP_50", "canopy IoU": "canopy_iou"}
    known = {shown: numbers.get(name) for shown, name in scores.items()}
    shares = "   ".join(f"{shown} {value:.4f}" for shown, value in known.items() if value is not None)
    things = [name.removesuffix("_count") for name in numbers if name.endswith("_count")]
    counts = [_counted(thing, numbers) for thing in sorted(things, key=lambda thing: thing == "total")]
    counts = [line for line in counts if line]
    return [*([shares] if shares else []), *(["crowns, summed over the pictures:", *counts] if counts else [])]


def _counted(thing: str, numbers: Mapping[str, float | None]) -> str:
    found, true = numbers.get(f"{thing}_count"), numbers.get(f"{thing}_count_true")
    if found is None or true is None:
        return ""
    error = f" ({(found - true) / true:+.1%})" if true else ""
    return f"  {thing}: {found:.0f} found, {true:.0f} in the truth{error}"


def _writable(path: Path) -> Path:
    """Refuse an output that cannot be written before the minutes of work, not after."""
    if path.is_dir():
        raise click.UsageError(f"--json {path} is a folder; give the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise click.UsageError(f"--json {path} cannot be written ({error.strerror}); choose another place") from None
    return path
