"""The losses, a value per picture.

torchvision averages over all RoIs or positives of a batch, which makes the gradient depend on how the batch was
cut. Here each picture's loss is a mean over its own candidates or pixels, and the train function averages over
pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from cabruca.structures import IGNORE

BETA = 1 / 9
"""Where smooth L1 turns from square to line for box offsets (torchvision's value)."""


def picture_mean(values: Tensor, known: Tensor) -> Tensor:
    """`[B, ...]` values -> `[B]`: the mean over each picture's `known` entries, 0 where there are none."""
    known = known.to(values.dtype)
    axes = tuple(range(1, values.ndim))
    return (values * known).sum(dim=axes) / known.sum(dim=axes).clamp(min=1)


def objectness_loss(logits: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross-entropy over one picture's sampled anchors; logits `[A]`, indices of both kinds -> scalar."""
    index = torch.cat([positive, negative])
    if index.numel() == 0:
        return logits.sum() * 0
    target = torch.zeros(index.shape[0], dtype=logits.dtype, device=logits.device)
    target[: positive.shape[0]] = 1
    return F.binary_cross_entropy_with_logits(logits[index], target)


def box_loss(offsets: Tensor, targets: Tensor, sampled: int) -> Tensor:
    """Smooth L1 of the positives' `[P, 4]` offsets, over the number of sampled candidates (Ren et al. 2015)."""
    return F.smooth_l1_loss(offsets, targets, beta=BETA, reduction="sum") / max(1, sampled)


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over one picture's sampled RoIs, `[R, K]` and `[R]` -> scalar."""
    return F.cross_entropy(logits, labels) if labels.numel() else logits.sum() * 0


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy over one picture's positive RoIs, `[P, m, m]` each -> scalar (He et al. 2017)."""
    return F.binary_cross_entropy_with_logits(logits, targets) if logits.numel() else logits.sum() * 0


def semantic_loss(
    logits: Tensor, target: Tensor, *, class_weights: Sequence[float] | None = None, dice_weight: float = 0.0
) -> Tensor:
    """Cross-entropy over each picture's known pixels, and a Dice term where asked for.

    Args:
        logits: `[B, K, H, W]`; target: uint8 `[B, H, W]`, 255 = ignored.
        class_weights: K weights; the mean is then the weighted mean.
        dice_weight: weight of 1 - Dice, mean over the classes present (Milletari et al. 2016).

    Returns:
        `[B]`, 0 for a picture without known pixels.
    """
    known = target != IGNORE
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=logits.dtype, device=logits.device)
    truth = target.long()
    values = F.cross_entropy(logits, truth, weight=weights, ignore_index=IGNORE, reduction="none")
    if weights is None:
        loss = picture_mean(values, known)
    else:
        share = weights[truth.masked_fill(~known, 0)] * known
        loss = values.sum(dim=(1, 2)) / share.sum(dim=(1, 2)).clamp(min=1e-12)
    return loss + dice_weight * _dice(logits, truth, known) if dice_weight else loss


def _dice(logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    probability = logits.softmax(dim=1) * known[:, None]
    one_hot = F.one_hot(truth.masked_fill(~known, 0), logits.shape[1]).permute(0, 3, 1, 2) * known[:, None]
    one_hot = one_hot.to(logits.dtype)
    overlap = (probability * one_hot).sum(dim=(2, 3))
    sizes = probability.sum(dim=(2, 3)) + one_hot.sum(dim=(2, 3))
    return picture_mean(1 - 2 * overlap / sizes.clamp(min=1e-6), one_hot.sum(dim=(2, 3)) > 0)


def crown_loss(log_diameter: Tensor, target_px: Tensor) -> Tensor:
    """Smooth L1 on the logarithm of the crown diameter, crown cells only.

    The logarithm makes it the same whether both are in pixels or both in metres.

    Args:
        log_diameter: `[B, h, w]`; target_px: `[B, h, w]`, 0 = no crown or unknown.
    """
    known = target_px > 0
    target = target_px.clamp(min=1e-3).log().to(log_diameter.dtype)
    return picture_mean(F.smooth_l1_loss(log_diameter, target, reduction="none"), known)


def density_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of canopy cover over known cells; `[B, h, w]` both, target -1 = unknown."""
    known = target >= 0
    values = F.binary_cross_entropy_with_logits(logits, target.clamp(min=0).to(logits.dtype), reduction="none")
    return picture_mean(values, known)
