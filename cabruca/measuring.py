"""What is said of a validation before it runs: names of its metrics, the inventory beside it, what cannot be known."""

from __future__ import annotations

import logging

from cabruca.config.schema import Config
from cabruca.data.dataset import EvaluationWindows
from cabruca.data.inventory import load_inventory
from cabruca.ground import Inventory
from cabruca.metrics.agroforestry import agroforestry_names
from cabruca.metrics.counts import count_metrics
from cabruca.metrics.detection import SUMMARIES
from cabruca.metrics.segmentation import semantic_metrics
from cabruca.structures import InputSpec

_log = logging.getLogger("cabruca")


def metric_names(config: Config, spec: InputSpec) -> frozenset[str]:
    """Names that `evaluate_windows` may give, with every class as if the truth had it."""
    classes = spec.instance_classes
    losses = {"total_loss", *(f"loss_{head}" for head in config.model.heads)}
    if "instance" in config.model.heads:
        losses |= {f"loss_instance/{part}" for part in ("rpn", "box", "mask")}
    plain = [*SUMMARIES, *(f"{kind}_{summary}" for kind in ("bbox", "segm") for summary in SUMMARIES)]
    by_class = {f"{name}/{own}" for name in plain[len(SUMMARIES) :] for own in classes}
    cover = semantic_metrics(None, spec.semantic_classes, canopy=classes)
    counts = count_metrics([], classes, score_threshold=config.validation.score_threshold)
    validation, agroforestry = config.validation, frozenset[str]()
    if validation.calculate_agroforestry_metrics:
        agroforestry = agroforestry_names(classes, inventory=validation.plantation_data is not None)
    return frozenset({*losses, *plain, *by_class, *cover, *counts, *agroforestry})


def inventory_of(windows: EvaluationWindows, config: Config, spec: InputSpec) -> dict[str, Inventory] | None:
    """`validation.plantation_data` on the planes of the pictures; None where there is none to compare with.

    Raises:
        DataError: see `load_inventory`.
    """
    path = config.validation.plantation_data
    if path is None:
        return None
    if not config.validation.calculate_agroforestry_metrics:
        _log.warning(
            "validation.plantation_data is '%s' and nothing is compared with it: "
            "validation.calculate_agroforestry_metrics is false; set it to true, or leave the inventory out", path
        )  # fmt: skip
        return None
    return load_inventory(path, spec, windows.planes, windows.grounds)


def name_unknown_scales(windows: EvaluationWindows, config: Config) -> None:
    """Say which agroforestry metrics these pictures cannot have."""
    unknown = [g.picture for g in windows.grounds if not g.in_metres]
    if unknown and config.validation.calculate_agroforestry_metrics:
        _log.info(
            "%d of %d validation pictures have no known ground sampling distance (first: image %s): agroforestry "
            "metrics in metres and hectares %s; give images[].gsd_m or georeferenced rasters",
            len(unknown), len(windows.grounds), unknown[0],
            "are left empty" if len(unknown) == len(windows.grounds) else "leave them out",
        )  # fmt: skip
