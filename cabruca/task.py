"""Crowns and land cover as a Task: the only joint between data, model, metrics and the train function."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cabruca.config.schema import Config
from cabruca.config.stages import tile_size_at
from cabruca.data.dataset import EvaluationWindows, TrainWindows, input_spec
from cabruca.data.facts import training_facts
from cabruca.data.loaders import evaluation_batches, train_batches
from cabruca.facts import TrainingFacts
from cabruca.ground import Inventory
from cabruca.measuring import inventory_of, metric_names, name_unknown_scales
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.records import PictureRecord
from cabruca.metrics.thresholds import CHOSEN_BY, choose_scores
from cabruca.model.build import build_model
from cabruca.model.segmenter import Segmenter, Terms, parameter_part
from cabruca.operating_point import KEY, OperatingPoint
from cabruca.pictures import draw_comparison
from cabruca.runtime import Runtime
from cabruca.structures import Batch, InputSpec
from cabruca.train.protocols import Autocast, Losses, Metrics, Picture, State, Validation

_log = logging.getLogger("cabruca")

INSTANCE_PARTS = ("instance/rpn", "instance/box", "instance/mask")
"""What the instance loss is the sum of."""


class CabrucaTask:
    """The `Task` of train/protocols.py for crowns and land cover.

    Data is opened when it is first needed, so a task can be made to look at a model alone.

    Args:
        config: the whole configuration.
        spec: how pictures become input; None: derived from the configuration and the training data.
    """

    def __init__(self, config: Config, spec: InputSpec | None = None) -> None:
        self.config = config
        self.spec = spec or input_spec(config)
        self._train: TrainWindows | None = None
        self._by_tile: dict[int, TrainWindows] = {}
        self._validation: EvaluationWindows | None = None
        self._inventory: dict[str, Inventory] | None = None
        self._facts: TrainingFacts | None = None
        self._silent_heads_named = False

    @property
    def train_windows(self) -> TrainWindows:
        """Of the last stage."""
        if self._train is None:
            self._train = TrainWindows(self.config, self.spec)
            self._by_tile = {self._train.tile_size: self._train}
        return self._train

    def windows_at(self, epoch: int) -> TrainWindows:
        """The training windows of epoch `epoch` (0-based): those of its stage, over the same opened pictures."""
        last, tile_size = self.train_windows, tile_size_at(self.config, epoch)
        if tile_size not in self._by_tile:
            self._by_tile[tile_size] = last.at(tile_size)
        return self._by_tile[tile_size]

    @property
    def validation_windows(self) -> EvaluationWindows:
        if self._validation is None:
            data = self.config.data
            self._validation = evaluation_windows(self.config, self.spec, data.val_dir, data.val_annotations)
            self._inventory = inventory_of(self._validation, self.config, self.spec)
            name_unknown_scales(self._validation, self.config)
        return self._validation

    def prepare(self) -> None:
        """Open training and validation data: what is wrong with either is found before the first step.

        Raises:
            DataError: a file, a category, a size, a band or a ground sampling distance.
        """
        _ = (self.train_windows, self.validation_windows)

    def metric_names(self) -> frozenset[str]:
        """All that a validation can measure; which of it, the data decides."""
        return metric_names(self.config, self.spec)

    def build_model(self) -> nn.Module:
        return build_model(self.config, self.spec)

    def bare_model(self) -> nn.Module:
        """The network without pretrained weights, for a file that brings them: nothing is fetched."""
        return build_model(self.config, self.spec, weights=False)

    def compilable(self, model: nn.Module) -> list[nn.Module]:
        """Backbone and dense heads: their shapes do not depend on how many crowns a picture has."""
        names = ("backbone", "semantic", "crown", "density")
        return [part for name in names if (part := getattr(model, name)) is not None]

    def parameter_part(self, name: str) -> str:
        return parameter_part(name)

    def num_train_samples(self, epoch: int) -> int:
        return self.windows_at(epoch).num_samples(epoch)

    def train_batches(self, epoch: int, index_batches: Sequence[Sequence[int]], runtime: Runtime) -> Iterable[Batch]:
        windows = self.windows_at(epoch)
        for other in self._by_tile.values():  # a stage that is over needs its loader processes no more
            if other is not windows:
                other.loaders.clear()
        return train_batches(windows, epoch, index_batches, runtime, pin_memory=pin_memory(self.config, runtime))

    def losses(self, model: nn.Module, batch: Batch) -> Losses:
        terms = model(batch).terms
        self._name_silent_heads(terms)
        return weighted(terms, self.config, batch)

    def _name_silent_heads(self, terms: Terms) -> None:
        """Say once which heads this data cannot teach."""
        if self._silent_heads_named:
            return
        self._silent_heads_named = True
        silent: list[str] = [h for h in self.config.model.heads if h not in terms.heads]
        if "instance" in terms.heads and "mask" not in terms.instance_parts:
            silent.append("instance masks")
        if silent:
            _log.info("no truth in the first batch for: %s; they learn nothing from such batches", ", ".join(silent))

    def validate(self, model: nn.Module, runtime: Runtime, autocast: Autocast, *, epoch: int) -> Validation:
        keep = self.config.validation.num_pictures if self.config.validation.save_predictions else 0
        was_training = model.training
        model.eval()
        try:
            windows = self.validation_windows
            found = evaluate_windows(
                model,
                windows,
                self.config,
                self.spec,
                runtime=runtime,
                autocast=autocast,
                num_pictures=keep,
                inventory=self._inventory,
            )
        finally:
            model.train(was_training)
        if KEY in found.beside:  # later checkpoints carry it too, until the next validation
            told = {**found.beside[KEY], "found_on": f"validation after epoch {epoch}"}
            found = replace(found, beside={**found.beside, KEY: told})
        return found

    def state(self) -> State:
        """How pictures become input and, once training data was opened, what it says of itself (`TrainingFacts`)."""
        if self._facts is None and self._train is not None:
            self._facts = training_facts(self._train.pictures)
        return {"input": self.spec.to_dict(), **({} if self._facts is None else {"data": self._facts.to_dict()})}


def pin_memory(config: Config, runtime: Runtime) -> bool:
    """`data.pin_memory`, by default where it helps: on CUDA."""
    return runtime.device.type == "cuda" if config.data.pin_memory in (None, "auto") else bool(config.data.pin_memory)


def evaluation_windows(
    config: Config, spec: InputSpec, images: str | Path, annotations: str | Path
) -> EvaluationWindows:
    """Whole pictures, or a grid over the large ones, with their truth."""
    return EvaluationWindows(
        images,
        annotations,
        spec,
        max_side_px=config.validation.max_side_px,
        overlap=config.data.overlap,
        min_visible_share=config.data.min_visible_share,
        cache_mb=config.data.cache_mb,
    )


def weighted(terms: Terms, config: Config, batch: Batch) -> Losses:
    """`loss = sum(weight_k * loss_k)`, a value per picture, with the parts for the record.

    A part is NaN, unknown, for a picture without truth of that kind: the record's means must not depend on how many
    such pictures there are, or on which batch they came in. To the sum such a picture adds nothing.
    """
    weights = {
        "instance": config.loss.instance_weight,
        "semantic": config.loss.semantic_weight,
        "crown": config.loss.crown_weight,
        "density": config.loss.density_weight,
    }
    total: Tensor = torch.zeros(len(batch), device=batch.images.device, dtype=batch.images.dtype)
    unknown = torch.full_like(total, float("nan"))
    for name, value in terms.heads.items():
        total = total + weights[name] * value
    found = {**terms.heads, **{f"instance/{k}": v for k, v in terms.instance_parts.items()}}
    names = [*config.model.heads, *(INSTANCE_PARTS if "instance" in config.model.heads else ())]
    parts = {f"loss_{k}": found[k].detach() if k in found else unknown for k in names}
    for k, known in terms.known.items():
        parts[f"loss_{k}"] = torch.where(known, parts[f"loss_{k}"], unknown.to(parts[f"loss_{k}"].dtype))
    return Losses(total=total, parts=parts)


@torch.no_grad()
def evaluate_windows(
    model: nn.Module,
    windows: EvaluationWindows,
    config: Config,
    spec: InputSpec,
    *,
    runtime: Runtime,
    autocast: Autocast,
    num_pictures: int = 0,
    inventory: Mapping[str, Inventory] | None = None,
    scores: Mapping[str, float] | None = None,
) -> Validation:
    """Losses and every metric over `windows`, this rank's share gathered with the others'.

    The model must be in eval mode. `scores`: class -> count from there, see `Evaluator`. `num_pictures`
    comparisons of truth and prediction come from rank 0's first windows.
    """
    evaluator = Evaluator(
        spec.instance_classes,
        spec.semantic_classes,
        config.validation,
        min_visible_share=config.data.min_visible_share,
        inventory=inventory,
        scores=scores,
    )
    losses: dict[str, dict[str, float]] = {}
    pictures: list[Picture] = []
    for batch in window_batches(windows, runtime, config, model):
        with autocast():
            output = model(batch, losses=True, predictions=True)
        evaluator.add(batch, output.predictions)
        own = weighted(output.terms, config, batch)
        for b, name in enumerate(batch.pictures):
            losses[name] = {"total_loss": float(own.total[b]), **{k: float(v[b]) for k, v in own.parts.items()}}
            if runtime.is_main and len(pictures) < num_pictures:
                pictures.append(draw_comparison(batch, output.predictions[b], b, spec, evaluator.least))
    mask_labels = frozenset(torch.nonzero(_mask_trained(model)).flatten().tolist())
    metrics, findings = evaluator.measure(runtime, mask_labels=mask_labels, heads=config.model.heads)
    point = operating_point(evaluator.gathered, config, spec)
    beside = {} if point is None else {KEY: point.to_dict()}
    return Validation({**_mean_losses(runtime.gather(losses)), **metrics}, pictures, beside, findings)


def operating_point(records: Sequence[PictureRecord], config: Config, spec: InputSpec) -> OperatingPoint | None:
    """The score to count the crowns of each class from; None without an instance head, or without crowns."""
    found = choose_scores(records, spec.instance_classes) if "instance" in config.model.heads else {}
    if not found:
        return None
    return OperatingPoint(
        {name: choice.score for name, choice in found.items()},
        CHOSEN_BY,
        measured={name: choice.measured() for name, choice in found.items()},
    )


def window_batches(windows: EvaluationWindows, runtime: Runtime, config: Config, model: nn.Module) -> Iterator[Batch]:
    """This rank's share of `windows` as batches, where and as what the model's weights are."""
    indices = range(runtime.rank, len(windows), runtime.world_size)
    dtype = next(p.dtype for p in model.parameters())
    for batch in evaluation_batches(windows, list(indices), runtime, batch_size=config.validation.batch_size):
        yield batch.to(runtime.device, dtype=dtype)


def _mask_trained(model: nn.Module) -> Tensor:
    """bool per label; of a model without instance head, nothing."""
    inner: nn.Module = getattr(model, "module", model)
    if isinstance(inner, Segmenter) and inner.instance is not None:
        return inner.instance.mask_trained.cpu()
    return torch.zeros(0, dtype=torch.bool)


def _mean_losses(per_rank: Sequence[dict[str, dict[str, float]]]) -> Metrics:
    """Means over the pictures that a loss is known for, each counted once, in a fixed order; NaN where none is."""
    everyone = {k: v for part in per_rank for k, v in part.items()}
    names = sorted({name for v in everyone.values() for name in v})
    rows = [everyone[k] for k in sorted(everyone)]
    known = {n: [r[n] for r in rows if n in r and not math.isnan(r[n])] for n in names}
    return {n: sum(values) / len(values) if values else math.nan for n, values in known.items()}


@contextlib.contextmanager
def no_autocast() -> Iterator[None]:
    """Full precision, as an Autocast."""
    yield
