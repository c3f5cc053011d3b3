"""The network: losses that do not depend on the cut, and heads that learn only from truth they have."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from drawn import SPEC, drawn_batch, drawn_sample, light_config

from cabruca.errors import ConfigError
from cabruca.model.build import build_model
from cabruca.model.segmenter import Segmenter, parameter_part
from cabruca.structures import IGNORE, Batch, collate

PARTS = {"instance", "semantic", "crown", "density"}


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return build_model(light_config(), SPEC).double()


def doubled(batch: Batch) -> Batch:
    return batch.to("cpu", dtype=torch.float64)


def one_by_one(batch: Batch) -> list[Batch]:
    fields = [f.name for f in dataclasses.fields(Batch)]
    values = {n: v for n in fields if (v := getattr(batch, n)) is not None}
    return [Batch(**{n: v[i : i + 1] for n, v in values.items()}) for i in range(len(batch))]


def test_losses_do_not_depend_on_the_cut_of_the_batch(model: Segmenter) -> None:
    model.train()
    batch = doubled(drawn_batch(4))
    together = model(batch).terms
    alone = [model(b).terms for b in one_by_one(batch)]
    assert set(together.heads) == PARTS
    for name, value in together.heads.items():
        apart = torch.cat([t.heads[name] for t in alone])
        torch.testing.assert_close(value, apart, rtol=1e-9, atol=1e-12)


def test_forward_uses_no_global_random_numbers(model: Segmenter) -> None:
    batch = doubled(drawn_batch(1))
    before = torch.get_rng_state()
    first = model(batch).terms.heads["instance"]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(first, model(batch).terms.heads["instance"])


def test_the_same_seed_builds_the_same_network_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state()
    a, b = (build_model(light_config(), SPEC).state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    other = light_config()
    other = other.model_copy(update={"training": other.training.model_copy(update={"seed": 1})})
    c = build_model(other, SPEC).state_dict()
    assert not torch.equal(a["semantic.classify.weight"], c["semantic.classify.weight"])


def test_validation_changes_no_statistic_and_no_weight(model: Segmenter) -> None:
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        model(doubled(drawn_batch(2)), losses=True, predictions=True)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    # and in training mode the frozen batch norm stays as it is
    model.train()
    model(doubled(drawn_batch(2)))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items() if "running" in k)


def test_boxes_alone_train_rpn_and_box_and_nothing_else() -> None:
    model = build_model(light_config(), SPEC).train()
    terms = model(drawn_batch(2, masks=False)).terms
    assert set(terms.heads) == {"instance"}
    assert set(terms.instance_parts) == {"rpn", "box"}
    terms.heads["instance"].sum().backward()
    touched = {
        n.split(".")[0] if not n.startswith("instance.mask") else "mask"
        for n, p in model.named_parameters()
        if p.grad is not None
    }
    assert touched == {"backbone", "instance"}
    assert not model.instance.mask_trained.any()


def test_masks_are_remembered_per_class() -> None:
    model = build_model(light_config(), SPEC).train()
    batch = collate([drawn_sample([(40, 40, 14, 2), (90, 80, 16, 2)])])
    model.eval()
    model(batch)
    assert not model.instance.mask_trained.any()  # validation teaches nothing
    model.train()
    model(batch)
    assert model.instance.mask_trained.tolist() == [False, False, True]
    other = build_model(light_config(), SPEC)
    other.load_state_dict(model.state_dict())
    assert other.instance.mask_trained.tolist() == [False, False, True]


def test_nodata_takes_no_part_in_the_loss(model: Segmenter) -> None:
    model.train()
    sample = drawn_sample([(40, 40, 14, 1)])
    valid = sample.valid.clone()
    valid[:, 64:] = False
    semantic = sample.semantic.clone()
    semantic[:, 64:] = IGNORE
    density = sample.density.clone()
    density[:, 2:] = -1
    blank = dataclasses.replace(sample, valid=valid, semantic=semantic, density=density)
    wild = sample.image.clone()
    wild[:, :, 64:] = 1e4
    a = model(doubled(collate([blank]))).terms.heads
    b = model(doubled(collate([dataclasses.replace(blank, image=wild)]))).terms.heads
    assert all(torch.equal(a[k], b[k]) for k in a)
    c = model(doubled(collate([sample]))).terms.heads
    assert not torch.equal(a["semantic"], c["semantic"])


def test_no_crowns_no_nan(model: Segmenter) -> None:
    model.train()
    terms = model(doubled(collate([drawn_sample([])]))).terms
    assert all(torch.isfinite(v).all() for v in terms.heads.values())
    assert float(terms.instance_parts["rpn"].detach()) > 0


def test_predictions_fit_the_picture_not_the_padding() -> None:
    model = build_model(light_config(), SPEC).eval()
    sample = dataclasses.replace(drawn_sample([(40, 40, 14, 1)]), size_hw_px=(100, 90))
    with torch.no_grad():
        found = model(collate([sample]), losses=False, predictions=True).predictions[0]
    assert found.semantic.shape == (100, 90)
    assert (found.boxes_xyxy_px[:, 2] <= 90).all()
    assert (found.boxes_xyxy_px[:, 3] <= 100).all()
    assert (found.scores.diff() <= 0).all()


def test_padding_and_neighbours_do_not_change_a_prediction(model: Segmenter) -> None:
    model.eval()
    batch = doubled(drawn_batch(3))
    with torch.no_grad():
        together = model(batch, losses=False, predictions=True).predictions
        alone = [model(b, losses=False, predictions=True).predictions[0] for b in one_by_one(batch)]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.boxes_xyxy_px, b.boxes_xyxy_px, rtol=1e-6, atol=1e-4)
        assert torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("bands", [1, 4, 5])
def test_first_convolution_is_inflated_by_repeating_and_rescaling(bands: int) -> None:
    rgb = build_model(light_config(), SPEC).backbone.body.eval()
    spec = dataclasses.replace(SPEC, bands=tuple(range(1, bands + 1)), mean=(0.5,) * bands, std=(0.25,) * bands)
    many = build_model(light_config(), spec).backbone.body.eval()
    weight = next(p for p in many.parameters() if p.ndim == 4)
    assert weight.shape[1] == bands
    grey = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        a, b = rgb(grey.expand(-1, 3, -1, -1)), many(grey.expand(-1, bands, -1, -1))
    if bands == 1:  # one band stands for all three
        torch.testing.assert_close(a[0], b[0], rtol=1e-3, atol=1e-3)
    else:  # repeated filters, rescaled: equal bands answer about as three did, not bands / 3 times as strong
        assert 0.5 < float(b[0].norm() / a[0].norm()) < 2.0


def test_from_scratch_has_group_norm_and_no_batch_norm() -> None:
    model = build_model(light_config(pretrained="none"), SPEC)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert set(model(drawn_batch(1)).terms.heads) == PARTS


def test_heads_can_be_left_out() -> None:
    model = build_model(light_config(heads=("semantic",)), SPEC)
    out = model(drawn_batch(1), losses=True, predictions=True)
    assert set(out.terms.heads) == {"semantic"}
    assert len(out.predictions[0].scores) == 0


def test_every_parameter_has_a_part() -> None:
    model = build_model(light_config(), SPEC)
    parts = {parameter_part(n) for n, _ in model.named_parameters()}
    assert parts == {"backbone", "heads", "custom"}
    assert {parameter_part(n) for n, _ in model.named_parameters() if n.startswith(("crown", "density"))} == {"custom"}


def test_unknown_backbone_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean 'tf_efficientnet_lite0'"):
        build_model(light_config(backbone="tf_eficientnet_lite0"), SPEC)


def test_weights_that_cannot_be_fetched_are_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    real = timm.create_model

    def offline(name: str, *, pretrained: bool = False, **rest: object) -> object:
        if pretrained:
            raise ConnectionError("no route to host")
        return real(name, **rest)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match=r"resnet18.*could not be downloaded.*model.pretrained: none") as caught:
        build_model(light_config(backbone="resnet18"), SPEC)
    assert "\n" not in str(caught.value)


def test_bf16_keeps_boxes_in_full_precision() -> None:
    model = build_model(light_config(), SPEC).train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(drawn_batch(2)).terms
    assert all(v.dtype == torch.float32 for v in terms.heads.values())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = model.eval()(drawn_batch(2), losses=False, predictions=True).predictions
    assert all(p.boxes_xyxy_px.dtype == torch.float32 for p in found)
