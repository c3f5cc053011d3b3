"""Ground that nobody labelled: the network sees it, and nothing there is background or found."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from drawn import SPEC, drawn_sample, light_config

from cabruca.model.build import build_model
from cabruca.model.segmenter import Segmenter
from cabruca.structures import Batch, Sample, collate


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return build_model(light_config(), SPEC).double()


def doubled(*samples: Sample) -> Batch:
    return collate(samples).to("cpu", dtype=torch.float64)


def half(sample: Sample) -> Sample:
    """Labelled in its left half only."""
    labelled = sample.valid.clone()
    labelled[:, 64:] = False
    return dataclasses.replace(sample, labelled=labelled)


def test_unlabelled_pixels_are_seen(model: Segmenter) -> None:
    sample = drawn_sample([(30, 40, 14, 1)])
    assert torch.equal(model.normalised(doubled(sample)), model.normalised(doubled(half(sample))))


def test_no_candidate_on_unlabelled_ground_is_background(model: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    model.train()
    sample = drawn_sample([(30, 40, 14, 1)])
    seen: list[torch.Tensor] = []
    real = instance_head_draw(monkeypatch, seen)
    model(doubled(half(sample)))
    anchors = model.instance.rpn(model.backbone(model.normalised(doubled(sample)))).anchors_xyxy_px
    right = (anchors[:, 0] + anchors[:, 2]) / 2 >= 65
    assert real is not None
    assert not bool((seen[0][right] == 0).any())
    assert bool((seen[0][~right] == 0).any())


def instance_head_draw(monkeypatch: pytest.MonkeyPatch, seen: list[torch.Tensor]) -> object:
    import cabruca.model.proposals as module

    real = module.sample_balanced

    def spy(labels: torch.Tensor, *rest: object) -> object:
        seen.append(labels.clone())
        return real(labels, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "sample_balanced", spy)
    return real


def test_nothing_is_found_on_unlabelled_ground(model: Segmenter) -> None:
    model.eval()
    sample = drawn_sample([(30, 40, 14, 1), (100, 40, 14, 1)])
    with torch.no_grad():
        everywhere, left = model(doubled(sample, half(sample)), predictions=True).predictions
    assert bool((everywhere.boxes_xyxy_px[:, 0] > 70).any())
    assert not bool((left.boxes_xyxy_px[:, 0] > 70).any())
    assert len(left.scores) > 0


def test_a_batch_of_both_kinds() -> None:
    sample = drawn_sample([(30, 40, 14, 1)])
    assert collate([sample]).labelled is None
    both = collate([sample, half(sample)])
    assert both.labelled is not None
    assert bool(both.known[0].all())
    assert not bool(both.known[1, :, 64:].any())
    assert torch.equal(both.valid[0], both.valid[1])
    assert both.pin_memory().labelled is not None if torch.cuda.is_available() else True
