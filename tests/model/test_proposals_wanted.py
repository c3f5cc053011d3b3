"""A picture of more crowns than the proposals of training: enough are looked at."""

from __future__ import annotations

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
        many = rpn.proposals(found, batch.sizes_hw_px, wanted=40)
    assert len(few[0]) <= 10 < len(many[0]) <= 80
