"""Instance head: box, class and mask of every crown.

torchvision's pooler and predictors; own sampling and losses, a value per picture (see proposals.py for why).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, batched_nms, clip_boxes_to_image, remove_small_boxes

from cabruca.config.schema import ModelConfig
from cabruca.draws import draw_key
from cabruca.model.losses import box_loss, class_loss, mask_loss
from cabruca.model.masks import mask_targets, paste
from cabruca.model.matching import BACKGROUND, covered, match, sample_balanced
from cabruca.model.proposals import ProposalNetwork, anchors_known
from cabruca.model.semantic_head import conv_norm
from cabruca.structures import ENOUGH_KNOWN, Batch, CroppedMasks, known_share

POSITIVE_SHARE = 0.25
MASK_SIZE = 28
SAMPLES = 1
"""Readings a bin and axis in RoI pooling: crowns span one or two feature cells a bin, and on a CPU the backward
of four readings is a quarter of the whole step (measured)."""
LOWEST_SCORE = 0.01
"""Crowns below it are not even looked at; recall at low scores is part of mAP, counts have their own threshold."""
MASKS_AT_ONCE = 256
"""Detections whose masks are read in one pass: their activations, not their number, bound the memory."""


@dataclass(frozen=True)
class Rois:
    """Sampled boxes of one picture: `[R, 4]`, class `[R]` (0 = background), the crown each belongs to `[R]`."""

    boxes_xyxy_px: Tensor
    labels: Tensor
    crown: Tensor


@dataclass(frozen=True)
class Detections:
    """Crowns found in one picture, best first: `[N, 4]`, `[N]`, `[N]`, cropped masks or None."""

    boxes_xyxy_px: Tensor
    scores: Tensor
    labels: Tensor
    masks: CroppedMasks | None


class InstanceHead(nn.Module):
    """RPN, box head and mask head (He et al. 2017, "Mask R-CNN").

    `mask_trained` remembers, class by class, whether a mask was ever learnt from: it travels in the state dict,
    so that evaluate never reports masks of a class that only saw boxes.
    """

    mask_trained: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, classes = config.fpn_channels, config.num_instance_classes
        self.rpn = ProposalNetwork(config)
        names = ["0", "1", "2", "3"]
        self.box_pool = MultiScaleRoIAlign(names, 7, SAMPLES)
        self.box_head = TwoMLPHead(channels * 49, config.box_head_channels)
        self.box_predictor = FastRCNNPredictor(config.box_head_channels, classes)
        self.mask_pool = MultiScaleRoIAlign(names, MASK_SIZE // 2, SAMPLES)
        self.mask_head = nn.Sequential(*(conv_norm(channels, channels) for _ in range(config.mask_head_layers)))
        self.mask_predictor = MaskRCNNPredictor(channels, channels, classes)
        self.coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
        self.rois_per_picture = config.rois_per_picture
        self.masks_per_picture = config.masks_per_picture
        self.register_buffer("mask_trained", torch.zeros(classes, dtype=torch.bool))

    def losses(self, maps: list[Tensor], batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """`rpn`, `box` and, where the batch has masks, `mask`: `[B]` each, differentiable; and bool `[B]`, whether a
        mask was learnt from in each picture."""
        found = self.rpn(maps)
        objectness, rpn_box = self.rpn.losses(found, batch)
        # the loss must not depend on the padding's size: proposals are clipped to the padded picture
        size = (int(batch.images.shape[-2]), int(batch.images.shape[-1]))
        proposals = self.rpn.proposals(found, [size] * len(batch))
        rois = [self._sample(p, batch, b) for b, p in enumerate(proposals)]
        out = {"rpn": objectness + rpn_box, "box": self._box_losses(maps, batch, rois)}
        chosen = [self._with_masks(roi, batch, b) for b, roi in enumerate(rois)]
        with_masks = torch.tensor([len(index) > 0 for index in chosen], device=batch.images.device)
        mask = self._mask_losses(maps, batch, rois, chosen)
        return (out if mask is None else {**out, "mask": mask}), with_masks

    @torch.no_grad()
    def _sample(self, proposals: Tensor, batch: Batch, b: int) -> Rois:
        """A balanced draw of proposals and crowns; the crowns come first, so that their draws are stable."""
        crowns = batch.crowns[b]
        truth = crowns.boxes_xyxy_px.to(proposals.dtype)
        boxes = torch.cat([truth, proposals])
        matched = match(truth, boxes, low=0.5, high=0.5, rescue=False)
        labels = torch.where(matched >= 0, crowns.labels[matched.clamp(min=0)], 0) if len(crowns) else matched * 0
        labels[(matched == BACKGROUND) & ~anchors_known(boxes, batch.known[b : b + 1])[0]] = -1
        ignored = covered(boxes, crowns.ignore_xyxy_px)
        if ignored is not None:
            labels[(matched == BACKGROUND) & ignored] = -1
        positive, negative = sample_balanced(labels, draw_key(batch.keys[b], 2), self.rois_per_picture, POSITIVE_SHARE)
        index = torch.cat([positive, negative])
        return Rois(boxes[index], labels[index], matched[index].clamp(min=0))

    def _box_losses(self, maps: list[Tensor], batch: Batch, rois: list[Rois]) -> Tensor:
        logits, offsets = self._read_boxes(maps, [r.boxes_xyxy_px for r in rois], batch.images.shape[-2:])
        counts = [len(r.labels) for r in rois]
        out = []
        for b, (roi, logit, offset) in enumerate(
            zip(rois, torch.split(logits, counts), torch.split(offsets, counts), strict=True)
        ):
            positive = (roi.labels > 0).nonzero().flatten()
            truth = batch.crowns[b].boxes_xyxy_px.to(roi.boxes_xyxy_px.dtype)[roi.crown[positive]]
            targets = self.coder.encode_single(truth, roi.boxes_xyxy_px[positive])
            # a window of NoData alone has no RoI, so the number of classes cannot be left to reshape
            own = offset.reshape(len(roi.labels), logit.shape[1], 4)[positive, roi.labels[positive]]
            out.append(class_loss(logit, roi.labels) + box_loss(own, targets, len(roi.labels)))
        return torch.stack(out)

    def _read_boxes(self, maps: list[Tensor], boxes: list[Tensor], size: torch.Size) -> tuple[Tensor, Tensor]:
        features = self.box_head(self._pool(self.box_pool, maps, boxes, size))
        logits, offsets = self.box_predictor(features)
        return logits.to(boxes[0].dtype), offsets.to(boxes[0].dtype)

    @staticmethod
    def _pool(pooler: nn.Module, maps: list[Tensor], boxes: list[Tensor], size: torch.Size) -> Tensor:
        # RoIAlign has autocast kernels on CPU and CUDA alone, which do just this; on MPS half precision maps beside
        # float32 boxes would be refused (written from torchvision's registrations; not run on MPS)
        dtype = torch.float64 if maps[0].dtype == torch.float64 else torch.float32
        named = {str(i): m.to(dtype) for i, m in enumerate(maps)}
        pooled: Tensor = pooler(named, [b.to(dtype) for b in boxes], [tuple(size)] * len(boxes))
        return pooled

    def _mask_losses(self, maps: list[Tensor], batch: Batch, rois: list[Rois], chosen: list[Tensor]) -> Tensor | None:
        counts = [len(index) for index in chosen]
        if sum(counts) == 0:
            return None
        boxes = [roi.boxes_xyxy_px[index] for roi, index in zip(rois, chosen, strict=True)]
        labels = torch.cat([roi.labels[index] for roi, index in zip(rois, chosen, strict=True)])
        if self.training:
            self.mask_trained[labels] = True
        logits = self._read_masks(maps, boxes, labels, batch.images.shape[-2:])
        # all pictures' truth in one gather: a few dozen small operations, which cost a GPU their launch, once
        masks = CroppedMasks.together([crowns.masks for crowns in batch.crowns])
        first = accumulate((len(crowns) for crowns in batch.crowns), initial=0)
        crown = torch.cat([roi.crown[index] + at for roi, index, at in zip(rois, chosen, first, strict=False)])
        targets = mask_targets(masks, crown, torch.cat(boxes), MASK_SIZE)
        pairs = zip(torch.split(logits, counts), torch.split(targets, counts), strict=True)
        return torch.stack([mask_loss(logit, target) for logit, target in pairs])

    def _with_masks(self, roi: Rois, batch: Batch, b: int) -> Tensor:
        """Indices of the positives whose crown has a mask, at most `model.masks_per_picture` of them."""
        masks = batch.crowns[b].masks
        if len(masks) == 0:
            return roi.labels[:0]
        usable = ((roi.labels > 0) & masks.has_mask[roi.crown]).long()
        return sample_balanced(usable, draw_key(batch.keys[b], 3), self.masks_per_picture, 1.0)[0]

    def _read_masks(self, maps: list[Tensor], boxes: list[Tensor], labels: Tensor, size: torch.Size) -> Tensor:
        """Mask logits `[P, 28, 28]` of the given class each."""
        logits: Tensor = self.mask_predictor(self.mask_head(self._pool(self.mask_pool, maps, boxes, size)))
        return logits[torch.arange(len(labels), device=labels.device), labels].to(boxes[0].dtype)

    @torch.no_grad()
    def detect(
        self,
        maps: list[Tensor],
        batch: Batch,
        *,
        max_detections: Sequence[int],
        nms_iou: float,
        room: Sequence[float] | None = None,
    ) -> list[Detections]:
        """The crowns of each picture, at most `max_detections` `[B]`, in pixels of the picture.

        `room`: `[B]`, areas in training windows: so many times the proposals are looked at; None: once.
        """
        found = self.rpn(maps)
        proposals = self.rpn.proposals(found, batch.sizes_hw_px, room, wanted=max_detections)
        logits, offsets = self._read_boxes(maps, proposals, batch.images.shape[-2:])
        counts = [len(p) for p in proposals]
        out = []
        for b, (logit, offset) in enumerate(
            zip(torch.split(logits, counts), torch.split(offsets, counts), strict=True)
        ):
            boxes, scores, labels = self._best(proposals[b], logit, offset, batch.sizes_hw_px[b])
            known = known_share(boxes, batch.known[b]) >= ENOUGH_KNOWN
            boxes, scores, labels = boxes[known], scores[known], labels[known]
            keep = batched_nms(boxes.float(), scores.float(), labels, nms_iou)[: max_detections[b]]
            out.append(Detections(boxes[keep], scores[keep], labels[keep], None))
        return self._add_masks(maps, batch, out) if bool(self.mask_trained.any()) else out

    def _best(
        self, proposals: Tensor, logits: Tensor, offsets: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each proposal once per class, above the lowest score."""
        classes = logits.shape[1]
        boxes = self.coder.decode_single(offsets, proposals).reshape(-1, classes, 4)[:, 1:].reshape(-1, 4)
        scores = F.softmax(logits, dim=-1)[:, 1:].reshape(-1)
        labels = torch.arange(1, classes, device=logits.device).repeat(len(proposals))
        boxes = clip_boxes_to_image(boxes, size)
        keep = (scores > LOWEST_SCORE).nonzero().flatten()
        keep = keep[remove_small_boxes(boxes[keep], 1e-2)]
        return boxes[keep], scores[keep], labels[keep]

    def _add_masks(self, maps: list[Tensor], batch: Batch, found: list[Detections]) -> list[Detections]:
        padded = batch.images.shape[-2:]
        out = []
        for b, (d, size) in enumerate(zip(found, batch.sizes_hw_px, strict=True)):
            own = [m[b : b + 1] for m in maps]
            usable = self.mask_trained[d.labels].nonzero().flatten()
            parts = [self._masks_of(own, d, index, padded, size) for index in torch.split(usable, MASKS_AT_ONCE)]
            # a class whose masks were never learnt keeps its empty rectangle: its crowns are boxes
            rect = torch.zeros(len(d.labels), 4, dtype=torch.int64, device=d.labels.device)
            rect[usable] = torch.cat([p.rect_xywh_px for p in parts])
            out.append(replace(d, masks=CroppedMasks(torch.cat([p.pixels for p in parts]), rect)))
        return out

    def _masks_of(
        self, maps: list[Tensor], found: Detections, index: Tensor, padded: torch.Size, size: tuple[int, int]
    ) -> CroppedMasks:
        """The masks of one picture's detections at `index`."""
        if len(index) == 0:
            return CroppedMasks.empty().to(index.device)
        boxes = found.boxes_xyxy_px[index]
        logits = self._read_masks(maps, [boxes], found.labels[index], padded)
        return paste(logits.sigmoid(), boxes, *size)
