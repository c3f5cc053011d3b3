"""A map that is finished already, where going on was asked for: the same one, or an error."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from cabruca.data.map_layers import MapLayer, read_map
from cabruca.errors import DataError, RunError
from cabruca.predict.journal import changed, remove_left, state_of
from cabruca.predict.plan import Plan
from cabruca.predict.planes import raster_files
from cabruca.predict.run import Summary


def finished(plan: Plan, *, resume: bool) -> Summary | None:
    """What came of it; None where there is work left.

    Raises:
        RunError: what is there is no map of predict, or one of other images, another checkpoint or other settings.
    """
    request, out = plan.request, plan.request.out
    if not resume or not out.exists() or state_of(out).exists():
        return None
    plots = _plots(out)
    _check_same(plots, plan)
    for then in plots.fields["settings"]:
        _check_settings(then, plan)
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
    if plots is None or not whole or not {"image", "checkpoint_sha256", "settings"} <= plots.fields.keys():
        raise RunError(
            f"'{out}' is there and has no layer 'plots' of cabruca predict; choose another --out, or remove it"
        )
    return plots


def _check_same(plots: MapLayer, plan: Plan) -> None:
    request = plan.request
    then, now = plots.texts("image") or [], list(request.images)
    if sorted(Path(n).absolute() for n in then) != sorted(Path(n).absolute() for n in now):
        raise RunError(
            f"'{request.out}' is finished and shows {', '.join(then) or 'no image'}, not {', '.join(now)}; choose "
            "another --out, or remove it"
        )
    made_by = sorted(set(plots.texts("checkpoint_sha256") or []))
    if made_by != [plan.sha256]:
        raise RunError(
            f"'{request.out}' is finished and was made by a checkpoint of sha256 {', '.join(s[:12] for s in made_by)}, "
            f"and '{plan.checkpoint}' has {plan.sha256[:12]}; choose another --out, or remove it"
        )


def _check_settings(then: Any, plan: Plan) -> None:
    """What the map holds: JSON text, which GeoJSON turns into an object."""
    with contextlib.suppress(ValueError):
        then = json.loads(then) if isinstance(then, str) else then
    if not isinstance(then, dict):
        raise RunError(
            f"'{plan.request.out}' is finished and does not say with which settings; choose another --out, or remove it"
        )
    other = changed(then, plan.settings())
    if other:
        raise RunError(
            f"'{plan.request.out}' is finished and was made with other settings ({other}); ask for those, choose "
            "another --out, or remove it"
        )
