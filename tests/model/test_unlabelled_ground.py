"""Ground that nobody labelled: the network sees it, and nothing there is background or found."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from drawn import SPEC, crowns_of, drawn_sample, light_config, perfect
from surveyed import metrics_of

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


LEFT = torch.tensor([[x, y, x + 20.0, y + 20.0] for x in (0.0, 12.0, 24.0) for y in (0.0, 30.0, 60.0, 100.0)])
RIGHT = LEFT + torch.tensor([70.0, 0.0, 70.0, 0.0])


def box_losses(model: Segmenter, batch: Batch, *proposals: torch.Tensor) -> torch.Tensor:
    """Of the box head with these proposals: classes and offsets."""
    rois = [model.instance._sample(torch.cat(proposals).double(), batch, 0)]
    return model.instance._box_losses(model.backbone(model.normalised(batch)), batch, rois)


def test_the_box_head_is_not_punished_for_proposals_on_unlabelled_ground(model: Segmenter) -> None:
    """With them its loss is to the last bit what it is without; on labelled ground they are background."""
    model.train()
    sample = drawn_sample([(30, 40, 14, 1)])
    rois = model.instance._sample(torch.cat([LEFT, RIGHT]).double(), doubled(half(sample)), 0)
    assert set(rois.labels.tolist()) == {0, 1}
    assert bool((rois.boxes_xyxy_px[:, 0] < 64).all())
    left, whole = doubled(half(sample)), doubled(sample)
    assert torch.equal(box_losses(model, left, LEFT, RIGHT), box_losses(model, left, LEFT))
    assert not torch.allclose(box_losses(model, whole, LEFT, RIGHT), box_losses(model, whole, LEFT))
    loss = box_losses(model, doubled(half(drawn_sample([]))), RIGHT)
    loss.sum().backward()
    weight = model.instance.box_predictor.cls_score.weight
    assert (float(loss.detach().sum()), float(weight.grad.abs().sum())) == (0.0, 0.0)
    model.zero_grad()


@pytest.mark.parametrize(("x", "y", "wrong"), [(100, 40, False), (30, 100, True)])
def test_the_evaluator_holds_no_crown_on_unlabelled_ground_against_it(x: float, y: float, *, wrong: bool) -> None:
    """It is surer of a crown that no truth has: a false positive on labelled ground, elsewhere nothing at all."""
    sample = drawn_sample([(30, 40, 14, 1)], gsd_m=1.0)
    both = crowns_of([(x, y, 14, 1), (30, 40, 14, 1)])
    found = dataclasses.replace(
        perfect(sample), boxes_xyxy_px=both.boxes_xyxy_px, labels=both.labels, masks=both.masks,
        scores=torch.tensor([0.95, 0.9]),
    )  # fmt: skip
    out = metrics_of([(half(sample), found)])
    assert out["mAP_50"] == pytest.approx(0.5 if wrong else 1.0)
    assert out["total_count"] == (2 if wrong else 1)
    assert out["cacao_precision"] == (0.5 if wrong else 1.0)
    assert out["stem_density_per_ha"] == pytest.approx((2 if wrong else 1) * 1e4 / (128 * 64))


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
