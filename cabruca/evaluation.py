"""Evaluate a checkpoint on a data set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cabruca import operating_point
from cabruca.config.load import config_from_dict
from cabruca.config.schema import Config
from cabruca.errors import CabrucaError, CheckpointError
from cabruca.facts import TrainingFacts
from cabruca.measuring import inventory_of, name_unknown_scales
from cabruca.model.build import build_model
from cabruca.model.segmenter import Segmenter
from cabruca.operating_point import OperatingPoint
from cabruca.runtime import Runtime, choose_device, set_threads, thread_budget
from cabruca.structures import InputSpec
from cabruca.task import evaluate_windows, evaluation_windows
from cabruca.tracking.charting import warn_at_cap, write_charts
from cabruca.train import checkpoint as checkpoints
from cabruca.train.precision import resolve
from cabruca.train.protocols import Validation


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds: the network, on the CPU in eval mode, its configuration and input specification, and
    the facts of its training data (None in checkpoints of before)."""

    model: Segmenter
    config: Config
    spec: InputSpec
    facts: TrainingFacts | None


def load_model(checkpoint: str | Path) -> tuple[Segmenter, Config, InputSpec]:
    """The network of a checkpoint, on the CPU in eval mode, with its configuration and input specification.

    Raises:
        CheckpointError: missing, damaged, or not a cabruca checkpoint.
    """
    found = load_trained(checkpoint)
    return found.model, found.config, found.spec


def load_trained(checkpoint: str | Path) -> Trained:
    """Everything that a checkpoint knows.

    Raises:
        CheckpointError: missing, damaged, or not a cabruca checkpoint.
    """
    state = checkpoints.read(Path(checkpoint))
    config, spec, facts = _described(checkpoint, state)
    try:
        # the weights come from the checkpoint, so none are fetched; frozen batch norm keeps its place all the same
        model = build_model(config, spec, weights=False)
        model.load_state_dict(state["model"])
    except CabrucaError:
        raise
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"the weights of {checkpoint} do not fit its own configuration ({_reason(error)}); use another checkpoint"
        ) from error
    return Trained(model.eval(), config, spec, facts)


def _described(checkpoint: str | Path, state: Mapping[str, Any]) -> tuple[Config, InputSpec, TrainingFacts | None]:
    """Configuration, input specification and facts, whatever the file holds in their places."""
    try:
        config = config_from_dict(state["config"])
        spec = InputSpec.from_dict(state["task"]["input"])
        told = state["task"].get("data")
        facts = None if told is None else TrainingFacts.from_dict(told)
        lengths = {len(spec.bands), len(spec.mean), len(spec.std)}
        numbers = [*spec.mean, *spec.std, spec.scale]
        if len(lengths) > 1 or not all(isinstance(v, int | float) for v in numbers):
            raise ValueError("task.input: bands, mean and std do not belong together")
    except (CabrucaError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{checkpoint} does not describe its input and configuration ({_reason(error)}): it is not a checkpoint of "
            f"a cabruca training run; give one from a run's checkpoints folder"
        ) from error
    return config, spec, facts


def _reason(error: Exception) -> str:
    """One line; torch names what does not fit in its second."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[min(1, len(lines) - 1)] if lines else ""
    return f"no {said}" if isinstance(error, KeyError) else said or type(error).__name__


def evaluate(
    checkpoint: str | Path,
    images: str | Path,
    annotations: str | Path,
    *,
    category_map: Mapping[str, str] | None = None,
    device: str = "auto",
    score_threshold: float | Literal["auto"] | None = None,
    batch_size: int | None = None,
    num_pictures: int = 0,
    pictures_dir: str | Path | None = None,
    plots_dir: str | Path | None = None,
    inventory: str | Path | None = None,
    runtime: Runtime | None = None,
) -> dict[str, float | None]:
    """Every metric of a checkpoint on a data set; bands, scaling, normalisation and resolution are the checkpoint's.

    Args:
        images: folder that the COCO file's `file_name`s are relative to.
        category_map: dataset category -> class, beside the checkpoint's own.
        score_threshold: crowns from here on are counted; `auto`: from the operating point in the checkpoint's sidecar
            on, with its NMS; batch_size: pictures of one size in a pass; None: as the checkpoint was trained.
        num_pictures: comparisons of truth and prediction to write into `pictures_dir`.
        plots_dir: where precision, F1, confusion, counts and diameters are drawn, with the numbers in `findings.json`.
        inventory: trees that people counted on this ground, JSON or CSV, to compare with; None: no comparison.
        runtime: this process among those that evaluate together; None: it is alone, on `device`.

    Returns:
        name -> number, None where it is undefined (no truth of that kind).

    Raises:
        CheckpointError, DataError, DeviceError: one line each.
    """
    model, config, spec = load_model(checkpoint)
    point = point_of(checkpoint) if score_threshold == "auto" else None
    if point is not None and point.nms_iou is not None:
        model.nms_iou = point.nms_iou
    changes = {"score_threshold": None if score_threshold == "auto" else score_threshold, "batch_size": batch_size}
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    # the inventory of training is about other ground
    given["plantation_data"] = None if inventory is None else str(inventory)
    if inventory is not None:
        given["calculate_agroforestry_metrics"] = True
    config = config.model_copy(update={"validation": config.validation.model_copy(update=given)})
    spec = with_categories(spec, category_map or {})
    runtime = runtime or _alone(config, device)
    windows = evaluation_windows(config, spec, images, annotations)
    name_unknown_scales(windows, config)
    precision = resolve(config.training, runtime.device.type)
    model = model.to(runtime.device, precision.dtype)
    found = evaluate_windows(
        model,
        windows,
        config,
        spec,
        runtime=runtime,
        autocast=precision.autocast,
        num_pictures=num_pictures if pictures_dir else 0,
        inventory=inventory_of(windows, config, spec),
        scores=None if point is None else point.score,
    )
    if pictures_dir is not None:
        _write_pictures(found, Path(pictures_dir))
    if found.findings is not None and runtime.is_main:
        warn_at_cap(found.findings, config.validation.max_detections)
    if plots_dir is not None and found.findings is not None and runtime.is_main:
        write_charts(Path(plots_dir), found.findings, f"{Path(checkpoint).name} on {Path(annotations).name}")
    return {k: None if math.isnan(v) else v for k, v in sorted(found.metrics.items())}


def point_of(checkpoint: str | Path) -> OperatingPoint:
    """The operating point of a checkpoint.

    Raises:
        CheckpointError: it has none.
    """
    found = operating_point.read(Path(checkpoint))
    if found is None:
        raise CheckpointError(
            f"checkpoint {checkpoint} has no operating point in its .json, which 'auto' asks for; give a score, or "
            "find one with cabruca evaluate --tune-thresholds"
        )
    return found


def _alone(config: Config, device: str) -> Runtime:
    budget = thread_budget(config.data.num_workers)
    set_threads(budget)
    return Runtime.single(choose_device(device), loaders=budget.loaders)


def with_categories(spec: InputSpec, more: Mapping[str, str]) -> InputSpec:
    """The specification with more entries in its category map."""
    return InputSpec.from_dict({**spec.to_dict(), "category_map": {**spec.category_map, **more}})


def _write_pictures(found: Validation, folder: Path) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for picture in found.pictures:
        Image.fromarray(picture.rgb).save(folder / f"{picture.name}.png")
