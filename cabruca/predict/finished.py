"""A map that is finished already, where going on was asked for: the same one, or an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cabruca.data.map_layers import MapLayer, read_map
from cabruca.errors import DataError, RunError
from cabruca.predict.journal import remove_left, state_of
from cabruca.predict.plan import Request
from cabruca.predict.planes import raster_files
from cabruca.predict.run import Summary
from cabruca.train.sidecar import sha256_of


def finished(request: Request, checkpoint: Path, *, resume: bool) -> Summary | None:
    """What came of it; None where there is work left (or no checkpoint to compare: loading it says so).

    Raises:
        RunError: what is there is no map of predict, or one of other images or another checkpoint.
    """
    out = request.out
    if not resume or not out.exists() or state_of(out).exists() or not checkpoint.is_file():
        return None
    plots = _plots(out)
    _check_same(plots, request, sha256_of(checkpoint), checkpoint)
    areas = plots.numbers("area_ha")
    area_ha = None if np.isnan(areas).any() else float(areas.sum())
    rasters = [p for name in request.images for p in raster_files(request.raster_out, name) if p.is_file()]
    remove_left(out)
    return Summary(True, out, int(plots.numbers("n_crowns").sum()), area_ha, tuple(rasters), 0.0)


def _plots(out: Path) -> MapLayer:
    """The layer `plots`, with all that is read of it."""
    try:
        plots = read_map(out, "plots")
        whole = plots is not None and not np.isnan(plots.numbers("n_crowns")).any()
        plots.numbers("area_ha") if plots is not None else None
    except DataError as error:
        raise RunError(
            f"'{out}' is there and is no map to go on with ({error}); choose another --out, or remove it"
        ) from error
    if plots is None or not whole or not {"image", "checkpoint_sha256"} <= plots.fields.keys():
        raise RunError(
            f"'{out}' is there and has no layer 'plots' of cabruca predict; choose another --out, or remove it"
        )
    return plots


def _check_same(plots: MapLayer, request: Request, sha256: str, checkpoint: Path) -> None:
    then, now = plots.texts("image") or [], list(request.images)
    if sorted(Path(n).absolute() for n in then) != sorted(Path(n).absolute() for n in now):
        raise RunError(
            f"'{request.out}' is finished and shows {', '.join(then) or 'no image'}, not {', '.join(now)}; choose "
            "another --out, or remove it"
        )
    made_by = sorted(set(plots.texts("checkpoint_sha256") or []))
    if made_by != [sha256]:
        raise RunError(
            f"'{request.out}' is finished and was made by a checkpoint of sha256 {', '.join(s[:12] for s in made_by)}, "
            f"and '{checkpoint}' has {sha256[:12]}; choose another --out, or remove it"
        )
