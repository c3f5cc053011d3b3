"""`cabruca export`: the dense heads of a checkpoint for programs that have no cabruca."""

from __future__ import annotations

import click

from cabruca.cli.tables import quiet_option


@click.command(short_help="Export the dense heads to ONNX or torch.export.")
@click.option("--checkpoint", required=True, metavar="CKPT", help="A .pth file from a run's checkpoints folder.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["torch-export", "onnx"]),
    required=True,
    help="torch-export: a .pt2 for torch.export.load; onnx: for onnxruntime and others.",
)
@click.option("--out", required=True, metavar="FILE", help="The export; a .json beside it says how to feed it.")
@click.option(
    "--tile-size", type=click.IntRange(min=32), metavar="PX", help="Side of the pictures; default: as trained."
)
@quiet_option
def export(checkpoint: str, kind: str, out: str, tile_size: int | None, quiet: bool) -> int:
    """Write backbone, pyramid and the semantic, crown and density heads as one program, and check its numbers.

    Crowns (the instance head) cannot be exported: use `cabruca predict` for them.
    """
    from cabruca.exporting import export as write

    done = write(checkpoint, kind, out, tile_size=tile_size)
    if quiet:
        return 0
    click.echo(f"{done.path}: {', '.join(done.outputs)}; differs from the checkpoint by at most {done.off:.0e}")
    click.echo(f"{done.side}: how to feed it")
    for head, why in done.left_out.items():
        click.echo(f"not exported: the {head} head ({why})")
    return 0
