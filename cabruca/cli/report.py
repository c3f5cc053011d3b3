"""`cabruca report`: a map of crowns as numbers a plot and a hectare."""

from __future__ import annotations

import click

from cabruca.cli.tables import quiet_option
from cabruca.words import counted


@click.command(short_help="Report a map of crowns, a plot and a hectare.")
@click.argument("map_path", metavar="MAP")
@click.option("--plots", default="grid:1ha", show_default=True, metavar="FILE|grid:1ha", help="Polygons, or squares.")
@click.option("--out", default="report.html", show_default=True, metavar="HTML", help="The page; a .csv beside it.")
@click.option("--inventory", metavar="FILE", help="Trees counted on the ground, JSON or CSV, to compare with.")
@click.option("--image", metavar="TIF", help="The image, to lie behind the map of crowns.")
@click.option("--json", "json_path", metavar="OUT", help="Write the numbers as JSON as well.")
@click.option("--shade-radius", type=click.FloatRange(min=0, min_open=True), metavar="M", help="Shade reaches so far.")
@quiet_option
def report(  # noqa: PLR0917 (click gives them by name)
    map_path: str,
    plots: str,
    out: str,
    inventory: str | None,
    image: str | None,
    json_path: str | None,
    shade_radius: float | None,
    quiet: bool,
) -> int:
    """Trees, crown diameters, cover, shade and spacing of a map that `cabruca predict` wrote, plot by plot.

    MAP is a GeoPackage, or the crowns as GeoJSON or FlatGeobuf with the other layers beside it.
    """
    from cabruca.predict.report import report as write

    done = write(
        map_path, plots, out, inventory=inventory, image=image, json_path=json_path, shade_radius_m=shade_radius
    )
    for line in done.warnings:
        click.echo(f"warning: {line}", err=True)
    if quiet:
        return 0
    found = done.whole.values
    click.echo(
        f"{found['cacao_trees']:.0f} cacao and {found['shade_trees']:.0f} shade trees on {found['area_ha']:.2f} ha, "
        f"{counted(len(done.plots), 'plot')}"
    )
    click.echo("\n".join(f"written: {path}" for path in done.files))
    return 0
