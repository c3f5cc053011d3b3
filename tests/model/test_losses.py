"""Each loss against a number worked out by hand."""

from __future__ import annotations

import math

import torch

from cabruca.model.losses import crown_loss, density_loss, semantic_loss
from cabruca.structures import IGNORE


def test_semantic_is_the_mean_over_known_pixels_of_each_picture() -> None:
    logits = torch.zeros(2, 2, 1, 4)
    logits[0, 1] = math.log(3.0)  # class 1 has probability 3/4
    target = torch.tensor([[[1, 1, 0, IGNORE]], [[IGNORE] * 4]], dtype=torch.uint8)
    loss = semantic_loss(logits, target)
    expected = (2 * -math.log(0.75) - math.log(0.25)) / 3
    torch.testing.assert_close(loss, torch.tensor([expected, 0.0]))


def test_class_weights_give_the_weighted_mean() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1] = math.log(3.0)
    target = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    loss = semantic_loss(logits, target, class_weights=[1.0, 3.0])
    torch.testing.assert_close(loss, torch.tensor([(-3 * math.log(0.75) - math.log(0.25)) / 4]))


def test_dice_is_zero_when_right_and_one_when_wrong() -> None:
    target = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    right = torch.tensor([[[[50.0, -50.0]], [[-50.0, 50.0]]]])
    base = semantic_loss(right, target)
    torch.testing.assert_close(
        semantic_loss(right, target, dice_weight=2.0) - base, torch.tensor([0.0]), atol=1e-5, rtol=0
    )
    base = semantic_loss(-right, target)
    torch.testing.assert_close(
        semantic_loss(-right, target, dice_weight=2.0) - base, torch.tensor([2.0]), atol=1e-4, rtol=0
    )


def test_crown_loss_is_the_same_in_pixels_and_in_metres() -> None:
    target = torch.tensor([[[40.0, 0.0, 80.0]]])
    predicted = torch.tensor([[[44.0, 7.0, 40.0]]]).log()
    expected = (0.5 * math.log(1.1) ** 2 + 0.5 * math.log(2.0) ** 2) / 2
    torch.testing.assert_close(crown_loss(predicted, target), torch.tensor([expected]))
    in_metres = crown_loss(predicted + math.log(0.1), target * 0.1)
    torch.testing.assert_close(in_metres, torch.tensor([expected]))


def test_density_ignores_unknown_cells() -> None:
    logits = torch.tensor([[[0.0, 3.0]], [[1.0, 2.0]]])
    target = torch.tensor([[[0.5, -1.0]], [[-1.0, -1.0]]])
    torch.testing.assert_close(density_loss(logits, target), torch.tensor([math.log(2.0), 0.0]))
