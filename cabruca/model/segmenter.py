"""The network: one backbone, shared by four heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cabruca.config.schema import Config
from cabruca.model.backbone import Backbone
from cabruca.model.crown_head import CrownHead
from cabruca.model.density_head import DensityHead
from cabruca.model.instance_head import Detections, InstanceHead
from cabruca.model.losses import crown_loss, density_loss, semantic_loss
from cabruca.model.semantic_head import SemanticHead
from cabruca.structures import IGNORE, Batch, InputSpec, Prediction


@dataclass(frozen=True)
class Terms:
    """Losses of a batch, a value per picture `[B]` each.

    Attributes:
        heads: instance, semantic, crown, density (those that are on and have truth in this batch); unweighted.
        instance_parts: rpn, box, mask: what the instance loss is the sum of.
        known: for every head that is on, and `instance/mask`: bool `[B]`, whether the picture has truth for it. Where
            it has not, the loss above is 0 and means nothing.
    """

    heads: dict[str, Tensor]
    instance_parts: dict[str, Tensor]
    known: dict[str, Tensor]


@dataclass(frozen=True)
class Output:
    """What one pass gives: losses where asked for, predictions where asked for."""

    terms: Terms | None
    predictions: list[Prediction] | None


@dataclass(frozen=True)
class _Dense:
    """Outputs of the dense heads, None where not computed; `taught`: heads with truth in this batch."""

    semantic: Tensor | None
    crown: Tensor | None
    density: Tensor | None
    taught: frozenset[str]


class Segmenter(nn.Module):
    """Crowns, land cover, crown diameter and canopy density of a batch of pictures.

    Args:
        config: sections `model`, `loss` and `validation` are read.
        spec: bands, mean and std. Mean and std become buffers that are no part of the state dict: the specification is
            their only source. State dicts of before, which hold them, load all the same.
        weights: False leaves pretrained weights out, for a state dict that comes next.

    Attributes:
        max_detections: crowns a picture, best first. grow_caps: pictures larger than a training window may have more
            crowns, in proportion to their area (predict does; mAP has one cap for all pictures).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Config, spec: InputSpec, *, weights: bool = True) -> None:
        super().__init__()
        model = config.model
        channels = model.fpn_channels
        self.register_buffer("mean", _per_band(spec.mean), persistent=False)
        self.register_buffer("std", _per_band(spec.std), persistent=False)
        self.register_load_state_dict_pre_hook(_without_statistics)  # type: ignore[no-untyped-call]
        self.backbone = Backbone(model, len(spec.bands), weights=weights)
        self.instance = InstanceHead(model) if "instance" in model.heads else None
        self.semantic = SemanticHead(channels, model.num_semantic_classes) if "semantic" in model.heads else None
        self.crown = CrownHead(channels) if "crown" in model.heads else None
        self.density = DensityHead(channels) if "density" in model.heads else None
        self.loss_config = config.loss
        self.spec = spec
        self.max_detections = config.validation.max_detections
        self.grow_caps = False
        self.nms_iou = config.validation.nms_iou

    def forward(self, batch: Batch, *, losses: bool = True, predictions: bool = False) -> Output:
        """One pass. Losses change no statistic, so validation may ask for both at once."""
        maps = self.backbone(self.normalised(batch))
        known = self._known(batch) if losses else {}
        taught = frozenset(name for name, pictures in known.items() if bool(pictures.any()))
        # a head without truth in this batch is not even computed, unless its prediction is wanted
        dense = _Dense(
            semantic=self._dense(self.semantic, maps, predictions or "semantic" in taught),
            crown=self._dense(self.crown, maps, predictions or "crown" in taught),
            density=self._dense(self.density, maps, predictions or "density" in taught),
            taught=taught,
        )
        return Output(
            terms=self._terms(maps, batch, dense, known) if losses else None,
            predictions=self._predictions(maps, batch, dense) if predictions else None,
        )

    def normalised(self, batch: Batch) -> Tensor:
        """`[B, C, H, W]`: mean 0 and deviation 1 a band; NoData and padding are 0, the mean."""
        images = (batch.images - self.mean) / self.std * batch.valid[:, None]
        return images.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def _dense(head: nn.Module | None, maps: list[Tensor], wanted: bool) -> Tensor | None:
        if head is None or not wanted:
            return None
        out: Tensor = head(maps)
        return out if out.dtype == torch.float64 else out.float()

    def _known(self, batch: Batch) -> dict[str, Tensor]:
        """Head that is on -> bool `[B]`, whether the picture has truth for it; no crowns is truth too."""
        out: dict[str, Tensor] = {}
        if self.instance is not None:
            out["instance"] = torch.ones(len(batch), dtype=torch.bool, device=batch.images.device)
        if self.semantic is not None:
            out["semantic"] = (batch.semantic != IGNORE).flatten(1).any(dim=1)
        if self.crown is not None:
            out["crown"] = (batch.crown_diameter_px > 0).flatten(1).any(dim=1)
        if self.density is not None:
            out["density"] = (batch.density >= 0).flatten(1).any(dim=1)
        return out

    def _terms(self, maps: list[Tensor], batch: Batch, dense: _Dense, known: dict[str, Tensor]) -> Terms:
        heads: dict[str, Tensor] = {}
        parts: dict[str, Tensor] = {}
        if self.instance is not None:
            parts, with_masks = self.instance.losses(maps, batch)
            known = {**known, "instance/mask": with_masks}
            heads["instance"] = torch.stack(list(parts.values())).sum(dim=0)
        if dense.semantic is not None and "semantic" in dense.taught:
            heads["semantic"] = semantic_loss(
                dense.semantic,
                batch.semantic,
                class_weights=self.loss_config.semantic_class_weights,
                dice_weight=self.loss_config.semantic_dice,
            )
        if dense.crown is not None and "crown" in dense.taught:
            heads["crown"] = crown_loss(dense.crown, batch.crown_diameter_px)
        if dense.density is not None and "density" in dense.taught:
            heads["density"] = density_loss(dense.density, batch.density)
        return Terms(heads, parts, known)

    @torch.no_grad()
    def _predictions(self, maps: list[Tensor], batch: Batch, dense: _Dense) -> list[Prediction]:
        semantic, crown, density = dense.semantic, dense.crown, dense.density
        found: list[Detections] | None = None
        if self.instance is not None:
            room = [self.spec.room(size) for size in batch.sizes_hw_px]
            most = [math.ceil(self.max_detections * r) if self.grow_caps else self.max_detections for r in room]
            found = self.instance.detect(maps, batch, max_detections=most, nms_iou=self.nms_iou, room=room)
        out = []
        for b, (height, width) in enumerate(batch.sizes_hw_px):
            d = found[b] if found is not None else Detections(*_no_crowns(), None)
            out.append(
                Prediction(
                    boxes_xyxy_px=d.boxes_xyxy_px.float().cpu(),
                    scores=d.scores.float().cpu(),
                    labels=d.labels.cpu(),
                    masks=d.masks.to("cpu") if d.masks is not None else None,
                    semantic=None if semantic is None else semantic[b, :, :height, :width].argmax(0).byte().cpu(),
                    crown_diameter_px=None if crown is None else crown[b].exp().float().cpu(),
                    density=None if density is None else density[b].sigmoid().float().cpu(),
                )
            )
        return out


def _per_band(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)


def _without_statistics(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Drop the mean and std that early checkpoints hold."""
    for name in ("mean", "std"):
        state_dict.pop(prefix + name, None)


def _no_crowns() -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)


def parameter_part(name: str) -> str:
    """The parameter group of a name: `backbone` (with its pyramid), `heads` (instance, semantic), `custom`."""
    first = name.split(".", 1)[0]
    return {"backbone": "backbone", "crown": "custom", "density": "custom"}.get(first, "heads")
