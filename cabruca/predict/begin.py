"""`predict`: a checkpoint and rasters in, a map out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cabruca.errors import ConfigError, DataError
from cabruca.evaluation import load_trained
from cabruca.predict.finished import finished
from cabruca.predict.network import TrainedNetwork
from cabruca.predict.plan import Plan, Request, make_plan
from cabruca.predict.pool import InProcess
from cabruca.predict.run import Summary, run
from cabruca.predict.scenes import check_output
from cabruca.predict.watcher import Watcher
from cabruca.runtime import Runtime, choose_device, set_threads, thread_budget


def predict(
    checkpoint: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    device: str = "auto",
    resume: bool = False,
    watcher: Watcher | None = None,
    **options: Any,
) -> Summary:
    """Map the crowns of one or several rasters.

    Args:
        checkpoint: a .pth file of a run. images: GeoTIFF, PNG or JPEG files. out: .gpkg, .geojson or .fgb.
        resume: go on with a map that was begun. watcher: is told how far it is, and may stop it.
        options: those of `plan.Request`: score, gsd, tile_size, overlap, aoi, raster_out, batch_size, simplify_px.

    Returns:
        What came of it; with `resume`, of a map that is finished already too.

    Raises:
        CheckpointError, DataError, ConfigError, DeviceError, RunError: one line each.
    """
    request = make_request(images, out, options)
    check_output(request, resume=resume)
    trained = load_trained(checkpoint)
    plan = make_plan(request, trained.config, trained.spec, trained.facts, checkpoint=Path(checkpoint))
    check_heads(plan, trained.config.model.heads)
    if (done := finished(plan, resume=resume)) is not None:
        return done
    set_threads(thread_budget(1))  # a thread reads ahead
    runtime = Runtime.single(choose_device(device))
    return run(plan, InProcess(TrainedNetwork(trained, runtime, nms_iou=plan.nms_iou)), watcher)


def make_request(images: str | Path | Sequence[str | Path], out: str | Path, options: dict[str, Any]) -> Request:
    """The options as they were given, checked.

    Raises:
        ConfigError: no image, an image twice, or a number that is out of its range.
    """
    names = [images] if isinstance(images, str | Path) else list(images)
    if not names:
        raise ConfigError("there is no image to predict; give at least one with --image")
    if len({Path(n).absolute() for n in names}) < len(names):
        raise ConfigError("an image is given twice; give each once")
    given = {k: v for k, v in options.items() if v is not None}
    for key in ("aoi", "raster_out"):
        if key in given:
            given[key] = Path(given[key])
    request = Request(images=[str(n) for n in names], out=Path(out), **given)
    if request.score != "auto" and not 0 <= float(request.score) <= 1:
        raise ConfigError(f"--score {request.score} is not between 0 and 1; give a share, or auto")
    if request.overlap is not None and request.overlap < 0:
        raise ConfigError(f"--overlap {request.overlap} is negative; give 0 or more px")
    if request.aoi is not None and not request.aoi.is_file():
        raise DataError(f"--aoi '{request.aoi}' is not a file; check the name")
    return request


EMPTY = "canopy and shade cover of the map stay empty (cabruca report takes them off the crowns)"


def check_heads(plan: Plan, heads: Sequence[str]) -> None:
    """Say what the checkpoint cannot give.

    Raises:
        ConfigError: it has no instance head.
    """
    if "instance" not in heads:
        raise ConfigError(f"checkpoint {plan.checkpoint} has no instance head, so it finds no crowns; train with one")
    if not plan.facts.land_cover:
        plan.notes.append(
            "the checkpoint never saw land cover (its training crowns are boxes), so its semantic and density heads "
            f"mean nothing: {EMPTY}, and there are no rasters of them"
        )
        return
    lost = {"semantic": EMPTY, "density": "there is no raster of canopy density"}
    plan.notes.extend(f"the checkpoint has no {name} head: {said}" for name, said in lost.items() if name not in heads)
