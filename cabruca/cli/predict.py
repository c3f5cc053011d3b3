"""`cabruca predict`: from an orthomosaic to a map of crowns."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from cabruca.cli.options import Score, worker_options
from cabruca.words import counted

POSITIVE, COUNT = click.IntRange(min=1), click.IntRange(min=0)
DEVICES = click.Choice(["auto", "cpu", "cuda", "mps"])


@click.command(short_help="Map the crowns of an orthomosaic.")
@click.option("--checkpoint", required=True, metavar="CKPT", help="A .pth file from a run's checkpoints folder.")
@click.option("--image", "images", required=True, multiple=True, metavar="RASTER", help="GeoTIFF, PNG, JPEG (repeat).")
@click.option("--out", required=True, metavar="MAP", help="The map: .gpkg, .geojson or .fgb.")
@click.option("--score", type=Score(), default="auto", metavar="auto|X", help="Crowns from this score on are kept.")
@click.option(
    "--gsd", type=click.Choice(["match", "native"]), default="match", help="match: resample to the training scale."
)
@click.option("--tile-size", type=POSITIVE, metavar="PX", help="Side of a window; default: as trained.")
@click.option("--overlap", type=COUNT, metavar="PX", help="Of neighbouring windows; default: from the crowns' size.")
@click.option("--aoi", metavar="FILE", help="Only the ground inside these polygons.")
@click.option("--raster-out", metavar="DIR", help="Also write land cover, canopy density and shade as GeoTIFF.")
@click.option("--batch-size", type=POSITIVE, help="Windows in one pass; default: as trained.")
@click.option("--device", type=DEVICES, default="auto", help="Where to compute; auto: cuda, mps, cpu.")
@worker_options
@click.option("--resume", is_flag=True, help="Go on with a map that was begun.")
@click.option("--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout, the result last.")
def predict(
    *,
    checkpoint: str,
    images: Sequence[str],
    out: str,
    dashboard: bool | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Map the crowns of one or several rasters.

    Bands, scaling, tile size and ground sampling distance are the checkpoint's. Ctrl-C saves and says how to go on;
    after a kill, the same command with --resume goes on too.
    """
    from cabruca.cli.predict_progress import Teller
    from cabruca.launch import predict as launch

    with Teller(quiet=quiet, as_json=as_json) as teller:
        done = launch(checkpoint, list(images), out, watcher=teller, dashboard=dashboard is not False, **options)
    if not done.finished:
        line = f"stopped and saved; go on with: {_again()}"
        click.echo(line, err=True) if not as_json else click.echo(json.dumps({"event": "stopped", "message": line}))
        return 128 + (teller.signal or 2)
    facts = {"out": str(done.out), "crowns": done.crowns, "area_ha": done.area_ha, "seconds": done.seconds,
             "rasters": [str(r) for r in done.rasters]}  # fmt: skip
    if as_json:
        click.echo(json.dumps({"event": "result", **facts}))
    elif not quiet:
        ground = "" if done.area_ha is None else f" on {done.area_ha:.4g} ha"
        click.echo(f"{done.out}: {counted(done.crowns, 'crown')}{ground}, {done.seconds:.0f} s")
        for raster in done.rasters:
            click.echo(str(raster))
    return 0


def _again() -> str:
    from cabruca.commands import command

    given = sys.argv[1:] if "predict" in sys.argv[1:2] else ["predict"]
    return command(*given, *([] if "--resume" in given else ["--resume"]))
