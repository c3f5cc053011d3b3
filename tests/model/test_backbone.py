"""Backbones: the installed ImageNet weights land where they belong, and networks of another layout are refused."""

from __future__ import annotations

import pytest
import torch
from drawn import SPEC, light_config

from cabruca.errors import ConfigError
from cabruca.model import backbone
from cabruca.model.build import build_model

GOLDEN = [
    ((1, 24, 16, 16), -0.35065, 11.41902, 6.10071, 43.38071),
    ((1, 40, 8, 8), -0.176, 10.31662, -20.40357, 36.69678),
    ((1, 112, 4, 4), 0.39601, 6.32275, 2.45403, 25.22547),
    ((1, 320, 2, 2), 0.08945, 3.05066, -6.54717, 9.69159),
]
"""Shape, mean, deviation, one value and largest magnitude of each map, recorded with the mapping that
`efficientnet_lite0_weights` describes."""


def waves() -> torch.Tensor:
    """A fixed picture of three waves, `[1, 3, 64, 64]`."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return torch.stack([torch.sin(x / 5), torch.cos(y / 7), torch.sin((x + y) / 9)])[None]


def answers() -> list[tuple[tuple[int, ...], float, float, float, float]]:
    body = build_model(light_config(), SPEC).eval().backbone.body
    with torch.no_grad():
        maps = body(waves())
    return [
        (
            tuple(f.shape),
            float(f.mean()),
            float(f.std()),
            float(f[0, 3].flatten()[7 % f[0, 3].numel()]),
            float(f.abs().max()),
        )
        for f in maps
    ]


def matches_golden() -> bool:
    return all(
        found[0] == expected[0] and found[1:] == pytest.approx(expected[1:], rel=1e-3, abs=1e-3)
        for found, expected in zip(answers(), GOLDEN, strict=True)
    )


def test_installed_weights_give_the_features_that_were_recorded() -> None:
    assert matches_golden()


def test_weights_mapped_one_place_off_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tensors of equal shape change places, as they would if an order changed."""
    weights = backbone.efficientnet_lite0_weights()
    kernels = [k for k, v in weights.items() if v.ndim == 4]
    first, twin = next(
        (a, b) for a in kernels for b in kernels if a < b and weights[a].shape == weights[b].shape and "blocks.2" in a
    )
    weights[first], weights[twin] = weights[twin], weights[first]
    monkeypatch.setitem(backbone.OFFLINE_WEIGHTS, "tf_efficientnet_lite0", lambda: weights)
    assert not matches_golden()


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_networks_with_another_layout_or_a_fixed_size_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.backbone '{name}'.*try resnet50") as error:
        build_model(light_config(backbone=name, pretrained="none"), SPEC)
    assert "\n" not in str(error.value)


def test_maps_of_another_layout_are_told_from_a_fixed_size(monkeypatch: pytest.MonkeyPatch) -> None:
    class Channelslast(torch.nn.Module):
        class feature_info:
            @staticmethod
            def channels() -> list[int]:
                return [8]

            @staticmethod
            def reduction() -> list[int]:
                return [4]

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [torch.zeros(x.shape[0], x.shape[2] // 4, x.shape[3] // 4, 8)]

    with pytest.raises(ConfigError, match=r"gives maps of shape \[1, 24, 24, 8\] where \[1, 8, 24, 24\]"):
        backbone._check_maps("last", Channelslast())


def test_other_convolutional_networks_are_taken() -> None:
    model = build_model(light_config(backbone="resnet18", pretrained="none"), SPEC).eval()
    with torch.no_grad():
        maps = model.backbone(waves())
    assert [tuple(m.shape[-2:]) for m in maps] == [(16, 16), (8, 8), (4, 4), (2, 2)]
