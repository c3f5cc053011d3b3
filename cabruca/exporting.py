"""`cabruca export`: the dense heads of a checkpoint as one program that runs without cabruca.

Backbone, pyramid and the semantic, crown and density heads: their shapes depend on the picture's alone. The instance
head is left out, and said so: how many boxes survive its suppression decides the shapes of all that follows it, which
neither format holds with a dynamic batch.

The program takes pixel values divided by `scale` and normalises them itself; height and width are fixed, the batch is
not. It is traced with two pictures, because a batch of one would be taken for a constant, and is run with one, two and
three before it is handed out.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cabruca._version import __version__
from cabruca.draws import draw_key, uniform
from cabruca.errors import CabrucaError, ConfigError
from cabruca.evaluation import load_model
from cabruca.model.segmenter import Segmenter
from cabruca.structures import CROWN_STRIDE, DENSITY_STRIDE, InputSpec
from cabruca.tracking.files import to_json, write_atomic

FORMATS = ("torch-export", "onnx")
SAME = 1e-4
"""Largest difference between what is exported and the network itself, against 1 or the number's own size."""

BATCHES = (1, 2, 3)
"""Pictures that an export is tried with."""

NEEDS = ("onnx", "onnxscript", "onnxruntime")
"""Libraries of the extra `export`."""

LEFT_OUT = {
    "instance": "boxes, classes and masks of crowns: non-maximum suppression and RoI pooling have shapes that depend "
    "on the picture; use cabruca predict for crowns"
}

Run = Callable[[Tensor], Sequence[Tensor]]
"""`[B, C, H, W]` -> the outputs, in order."""


class DenseHeads(nn.Module):
    """Backbone and dense heads of a `Segmenter`, from scaled pixel values to what `predict` writes.

    Shapes: `[B, C, H, W]` -> of the heads that are on: `semantic` `[B, K, H, W]` logits, `crown_diameter_px`
    `[B, H/4, W/4]`, `density` `[B, H/32, W/32]` in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.register_buffer("mean", model.mean.clone())
        self.register_buffer("std", model.std.clone())
        self.backbone = model.backbone
        self.semantic, self.crown, self.density = model.semantic, model.crown, model.density

    @property
    def names(self) -> list[str]:
        """Of the outputs."""
        heads = {"semantic": self.semantic, "crown_diameter_px": self.crown, "density": self.density}
        return [name for name, head in heads.items() if head is not None]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.backbone((image - self.mean) / self.std)
        out: list[Tensor] = []
        if self.semantic is not None:
            out.append(self.semantic(maps))
        if self.crown is not None:
            out.append(self.crown(maps).exp())
        if self.density is not None:
            out.append(self.density(maps).sigmoid())
        return tuple(out)


@dataclass(frozen=True)
class Exported:
    """What was written. Attributes: path, side (its JSON), outputs: names; left_out: head -> why; off: the largest
    difference that was seen."""

    path: Path
    side: Path
    outputs: tuple[str, ...]
    left_out: dict[str, str]
    off: float


def export(checkpoint: str | Path, format: str, out: str | Path, *, tile_size: int | None = None) -> Exported:
    """Write the dense heads of a checkpoint to `out`, and how to feed them to `<out>.json`.

    Args:
        format: one of `FORMATS`. tile_size: side of the pictures, px; None: that of the training windows.

    Raises:
        ConfigError: another format, a name that is a checkpoint's, a side that is no multiple of 32, a library of the
            extra is missing.
        CheckpointError: missing, damaged, or not a cabruca checkpoint.
        CabrucaError: no dense head; or the exported numbers are not the network's.
    """
    if format not in FORMATS:
        raise ConfigError(f"--format {format} is not known; use one of {', '.join(FORMATS)}")
    if format == "onnx":
        needed()
    path = Path(out)
    side = path.with_name(f"{path.name}.json")
    if path.suffix == ".json":
        raise ConfigError(f"--out {out} ends in .json, which describes the export beside it; name it .pt2 or .onnx")
    if path.suffix in ("", ".pth") or path.resolve() == Path(checkpoint).resolve():
        # `name` would have the sidecar of the checkpoint `name.pth`
        raise ConfigError(f"--out {out} has the name of a checkpoint or of its .json; name it .pt2 or .onnx")
    model, _, spec = load_model(checkpoint)
    size = spec.tile_size if tile_size is None else tile_size
    if size < DENSITY_STRIDE or size % DENSITY_STRIDE:
        raise ConfigError(
            f"--tile-size {size} is no multiple of {DENSITY_STRIDE}, the coarsest stride of the network; use "
            f"{max(DENSITY_STRIDE, round(size / DENSITY_STRIDE) * DENSITY_STRIDE)}"
        )
    dense = DenseHeads(model).eval()
    if not dense.names:
        raise CabrucaError(f"{checkpoint} has no dense head (model.heads); {LEFT_OUT['instance']}")
    content, run = _torch_export(dense, spec, size) if format == "torch-export" else _onnx(dense, spec, size)
    off = compare(dense, run, [_pictures(spec, n, size) for n in BATCHES])
    left_out = LEFT_OUT if model.instance is not None else {}
    told = {
        **{
            "format": format,
            "checkpoint": str(checkpoint),
            "checkpoint_sha256": _sha256(Path(checkpoint).read_bytes()),
        },
        **{"file": path.name, "sha256": _sha256(content), "cabruca": __version__, "torch": str(torch.__version__)},
        **describe(dense, spec, size),
        "not_exported": left_out,
        "largest_difference": off,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
        write_atomic(side, to_json(told, indent=1) + "\n")
    except OSError as error:
        raise CabrucaError(
            f"{error.filename or path} cannot be written ({error.strerror}); choose another --out"
        ) from error
    return Exported(path, side, tuple(dense.names), dict(left_out), off)


def needed() -> dict[str, ModuleType]:
    """The libraries of the extra, by name.

    Raises:
        ConfigError: one of them is missing.
    """
    out = {}
    for name in NEEDS:
        try:
            out[name] = importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"--format onnx needs {name}, which is not installed; pip install 'cabruca[export]', or use "
                "--format torch-export"
            ) from error
    return out


def describe(dense: DenseHeads, spec: InputSpec, size: int) -> dict[str, Any]:
    """How to feed the program, and what it gives: input, outputs, classes."""
    cells = {"crown_diameter_px": CROWN_STRIDE, "density": DENSITY_STRIDE}
    meaning = {
        "semantic": "logits of each pixel's land cover; argmax over axis 1 is the class",
        "crown_diameter_px": "diameter of the crown above each cell, px of the input; times gsd_m: metres",
        "density": "canopy cover of each cell, 0..1",
    }
    shapes = {name: ["batch", size // cell, size // cell] for name, cell in cells.items()}
    shapes["semantic"] = ["batch", len(spec.semantic_classes), size, size]
    return {
        "input": {
            "name": "image",
            "shape": ["batch", len(spec.bands), size, size],
            "dtype": "float32",
            "values": "pixel value / scale; NoData pixels: the band's mean; mean and std are applied inside",
            **{"bands": list(spec.bands), "scale": spec.scale, "mean": list(spec.mean), "std": list(spec.std)},
            **{"pixel_dtype": spec.dtype, "gsd_m": spec.gsd_m},
        },
        "outputs": [{"name": n, "shape": shapes[n], "dtype": "float32", "meaning": meaning[n]} for n in dense.names],
        "classes": {"semantic": list(spec.semantic_classes), "instance": list(spec.instance_classes)},
    }


def compare(dense: nn.Module, run: Run, batches: Sequence[Tensor]) -> float:
    """The largest difference between `run` and the network, against 1 or the number's own size.

    Raises:
        CabrucaError: it is above `SAME`.
    """
    off = 0.0
    for images in batches:
        with torch.no_grad():
            wanted = dense(images)
        for ours, theirs in zip(wanted, run(images), strict=True):
            gap = (theirs - ours).abs() / ours.abs().clamp(min=1.0)
            off = max(off, float(gap.max())) if bool(gap.isfinite().all()) else float("inf")
    if off > SAME:
        raise CabrucaError(
            f"the exported network differs from the checkpoint by {off:.1e}, which is above {SAME:.0e}: nothing is "
            "written; use the other --format, and report it"
        )
    return off


def _torch_export(dense: DenseHeads, spec: InputSpec, size: int) -> tuple[bytes, Run]:
    program = _program(dense, spec, size)
    with io.BytesIO() as file:
        torch.export.save(program, file)
        content = file.getvalue()
    read = torch.export.load(io.BytesIO(content)).module()

    def run(images: Tensor) -> Sequence[Tensor]:
        with torch.no_grad():
            out: Sequence[Tensor] = read(images)
        return out

    return content, run


def _onnx(dense: DenseHeads, spec: InputSpec, size: int) -> tuple[bytes, Run]:
    libraries = needed()
    for name in ("onnxscript", "torch.onnx"):  # they tell at length what they do
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            _program(dense, spec, size), input_names=["image"], output_names=dense.names, dynamo=True, verbose=False
        )
    assert made is not None
    content: bytes = made.model_proto.SerializeToString()
    libraries["onnx"].checker.check_model(content)
    session = libraries["onnxruntime"].InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Sequence[Tensor]:
        return [torch.from_numpy(np.asarray(v)) for v in session.run(None, {"image": images.numpy()})]

    return content, run


def _program(dense: DenseHeads, spec: InputSpec, size: int) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        return torch.export.export(
            dense, (_pictures(spec, 2, size),), dynamic_shapes={"image": {0: batch}}, strict=False
        )


def _pictures(spec: InputSpec, n: int, size: int) -> Tensor:
    """`[n, C, size, size]` of any values that pixels may have."""
    values = uniform(draw_key(0, n), n * len(spec.bands) * size * size)
    mean, std = (torch.tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
    return (values.reshape(n, len(spec.bands), size, size).float() * 4 - 2) * std + mean


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
