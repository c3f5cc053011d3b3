"""A picture of more crowns, or more ground, than a training window: enough proposals are looked at."""

from __future__ import annotations

import dataclasses

import torch
from drawn import SPEC, drawn_batch, light_config

from cabruca.model.build import build_model


def test_twice_as_many_proposals_as_crowns_are_wanted() -> None:
    torch.manual_seed(0)
    model = build_model(light_config(), SPEC, weights=False).eval()
    batch = drawn_batch(1)
    assert model.instance is not None
    rpn = model.instance.rpn
    rpn.keep = 5
    with torch.no_grad():
        found = rpn(model.backbone(model.normalised(batch)))
        few = rpn.proposals(found, batch.sizes_hw_px)
        many = rpn.proposals(found, batch.sizes_hw_px, wanted=[40])
        large = rpn.proposals(found, batch.sizes_hw_px, [3.0], wanted=[5])
    assert len(few[0]) <= 5 < len(many[0]) <= 80
    assert 10 < len(large[0]) <= 15


@torch.no_grad()
def test_a_picture_of_more_ground_is_looked_at_as_closely_in_validation_as_on_a_map() -> None:
    """Else the score that counts right in large validation windows counts too many crowns in small ones."""
    torch.manual_seed(0)
    config = light_config()
    config = config.model_copy(
        update={
            "model": config.model.model_copy(update={"proposals": 4}),
            "validation": config.validation.model_copy(update={"max_detections": 6, "nms_iou": 0.9}),
        }
    )
    model = build_model(config, dataclasses.replace(SPEC, tile_size=64), weights=False).eval()
    asked: list[tuple[list[float], list[int]]] = []
    proposals = model.instance.rpn.proposals
    model.instance.rpn.proposals = lambda found, sizes, room, wanted: (
        asked.append((list(room), list(wanted))) or proposals(found, sizes, room, wanted=wanted)
    )
    for grow in (False, True):
        model.grow_caps = grow
        found = model(drawn_batch(1), losses=False, predictions=True).predictions[0]
        assert len(found.scores) == (24 if grow else 6)  # 128 px are four windows of 64 px
    assert asked == [([4.0], [6]), ([4.0], [24])]
