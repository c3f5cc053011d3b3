"""`cabruca data prepare`: orthomosaics and their labels become a data set for training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cabruca.cli.tables import aligned, json_option, quiet_option, say_json
from cabruca.commands import command
from cabruca.errors import DataError

if TYPE_CHECKING:
    from cabruca.data.prepare_output import Output

TILE = click.IntRange(min=32)


@click.command()
@click.option("--image", "images", required=True, multiple=True, metavar="TIF", help="An orthomosaic; may be repeated.")
@click.option("--labels", required=True, metavar="FILE", help="Polygons: GeoPackage, GeoJSON, Shapefile, FlatGeobuf.")
@click.option("--layer", metavar="NAME", help="Layer of the labels; by default the only one, or `crowns`.")
@click.option(
    "--label-field", metavar="FIELD", help="Field with the class; by default species, class, label, category."
)
@click.option(
    "--map", "pairs", multiple=True, metavar="VALUE=CLASS", help="Class of a label value, or ignore; * = others."
)
@click.option("--labels-are", type=click.Choice(["auto", "crowns", "boxes"]), default="auto", show_default=True,
              help="auto: boxes where all are upright rectangles.")  # fmt: skip
@click.option(
    "--aoi", metavar="FILE", help="The area that was labelled; else the regions, else the hull of the labels."
)
@click.option("--tile-size", type=TILE, help="Side of a training window, px; default: the configuration's.")
@click.option("--overlap", type=click.IntRange(min=0),
              help="Of validation windows, px; default: the configuration's, as large as a crown.")  # fmt: skip
@click.option("--split", default="spatial", show_default=True, metavar="spatial|FILE[:FIELD]",
              help="Blocks of ground by chance, or regions whose FIELD (split) says train, val or test.")  # fmt: skip
@click.option("--block", default="auto", show_default=True, metavar="50m|auto", help="Side of a spatial block, metres.")
@click.option("--val", "val_share", type=float, default=0.2, show_default=True, help="Share of ground and crowns.")
@click.option("--test", "test_share", type=float, default=0.1, show_default=True, help="Share held out; 0: none.")
@click.option("--folds", type=click.IntRange(min=0), default=0, metavar="K", help="Also K folds of blocks, for tuning.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same split.")
@click.option("--config", "config_path", metavar="FILE", help="Configuration that the written one starts from.")
@click.option("--out", "--output-dir", "out", required=True, metavar="DIR", help="A new folder.")
@quiet_option
@json_option
def prepare(
    *,
    images: Sequence[str],
    labels: str,
    layer: str | None,
    label_field: str | None,
    pairs: Sequence[str],
    labels_are: str,
    aoi: str | None,
    tile_size: int | None,
    overlap: int | None,
    split: str,
    block: str,
    val_share: float,
    test_share: float,
    folds: int,
    seed: int,
    config_path: str | None,
    out: str,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a data set of orthomosaics and crown polygons, without cutting them.

    Writes COCO files whose pictures are windows of the rasters, the split as GeoJSON, land cover painted from crowns,
    and a configuration for `cabruca train`. Training, validation and test are blocks of ground.
    """
    from cabruca.data.prepare import Wanted
    from cabruca.data.prepare import prepare as run
    from cabruca.data.prepare_split import Shares

    wanted = Wanted(
        images=images, labels=labels, out=out, layer=layer, label_field=label_field, class_map=_pairs(pairs), aoi=aoi,
        tile_size=tile_size, overlap=overlap, split=split, labels_are=labels_are,  # type: ignore[arg-type]
        shares=Shares(val_share, test_share, folds, _metres(block), seed), config=config_path,
    )  # fmt: skip
    found = run(wanted)
    config = Path(out) / "config.yaml"
    if as_json:
        say_json({**asdict(found), "config": str(config), "train": command("train", "--config", config)})
    elif not quiet:
        click.echo("\n".join(summary(found, Path(out))))


def _pairs(pairs: Sequence[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for pair in pairs:
        value, equals, name = pair.rpartition("=")
        if not equals:
            raise DataError(f"--map '{pair}' is no pair; write --map value=class")
        if out.get(value.strip(), name.strip()) != name.strip():
            raise DataError(f"--map sends '{value}' to '{out[value.strip()]}' and to '{name}'; give it one class")
        out[value.strip()] = name.strip()
    return out


def _metres(text: str) -> float | None:
    if text == "auto":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*m?", text.strip())
    if found is None or float(found[1]) <= 0:
        raise DataError(f"--block '{text}' is no length; write metres, such as 50m, or auto")
    return float(found[1])


def _to_tiles(path: str) -> str:
    """A line that makes a tiled GeoTIFF window by window; to write a COG, `rio` would hold the whole raster."""
    from cabruca.data.raster import source

    tiled = Path(path).with_name(f"{Path(path).stem}_tiled.tif")
    options = ["TILED=YES", "BLOCKXSIZE=512", "BLOCKYSIZE=512", "COMPRESS=DEFLATE", "BIGTIFF=IF_SAFER"]
    if source(Path(path)).profile.get("photometric") == "ycbcr":  # of JPEG alone; its pixels are read as RGB
        options.append("PHOTOMETRIC=RGB")
    return command("convert", path, tiled, *(word for one in options for word in ("--co", one)), program="rio")


def summary(found: Output, out: Path) -> list[str]:
    """What was prepared, and the next commands."""
    rows = [["set", "pictures", "hectares", "crowns", "undecided"]]
    for name, one in found.sets.items():
        crowns = ", ".join(f"{n} {c}" for c, n in one.crowns.items())
        rows.append([name, str(one.pictures), f"{one.hectares:.2f}", crowns, str(one.ignored)])
    config = out / "config.yaml"
    split = "regions" if found.block_m is None else f"blocks of {found.block_m:g} m"
    lines = [
        f"prepared in {out}: {'boxes' if found.boxes else 'crowns with outlines'}, split by {split}",
        aligned(rows, right=(1, 2, 4), indent="  "),
        *(f"  {note}" for note in found.notes),
    ]
    for path in found.slow:
        lines.append(
            f"  '{path}' is not tiled: each window of {found.tile_size} px decodes whole rows; a tiled one, or a "
            f"COG, is quicker: {_to_tiles(path)}"
        )
    if any("/" in name for name in found.sets):
        lines.append(f"tune over the folds: in a study, folds: {out / 'folds.json'} and scheduler: {{type: none}}")
    return [
        *lines,
        f"look at the split: {out / 'split.geojson'} (QGIS)",
        f"check it: {command('data', 'check', '--config', config)}",
        f"train on it: {command('train', '--config', config)}",
    ]
