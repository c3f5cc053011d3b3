"""Truth beside prediction, for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from cabruca.colours import colours_of, rgb_of
from cabruca.structures import DENSITY_STRIDE, IGNORE, Batch, CroppedMasks, InputSpec, Prediction
from cabruca.train.protocols import Picture

Rgb = npt.NDArray[np.uint8]

COVER_COLOURS = ((120, 120, 120), (230, 225, 90), (0, 110, 60), (150, 210, 100), (190, 140, 90), (40, 40, 70))
"""One a semantic class, in order; those of crowns have the colours of the crowns."""

COVER_SHARE = ((68, 1, 84), (33, 145, 140), (253, 231, 37))
"""Canopy cover of a cell: none, half, all; between them mixed (the ends and the middle of matplotlib's viridis)."""

INK, PAPER = (240, 240, 240), (20, 20, 20)

Colour = tuple[int, int, int]
Least = float | tuple[float, ...]

PANEL_PX = 512
"""Smaller pictures are enlarged to about this side, so that crowns can be told apart."""


def draw_comparison(batch: Batch, found: Prediction, b: int, spec: InputSpec, least: Least) -> Picture:
    """Picture `b` of a batch: crowns, land cover and canopy cover of truth and prediction, as far as both are known.

    Crowns with a mask are outlined, others get their box; only predictions from the score `least` on: one for all, or
    one by label (label 0 first). A legend below says what the colours mean.
    """
    height, width = batch.sizes_hw_px[b]
    rgb = _display(batch.images[b, :, :height, :width])
    crowns = batch.crowns[b]
    sure = found.scores >= (
        torch.tensor(least)[found.labels.cpu()].to(found.scores) if isinstance(least, tuple) else least
    )
    masks = None if found.masks is None else found.masks.select(sure)
    names = spec.instance_classes
    panels = [
        _crowns(rgb, crowns.boxes_xyxy_px, crowns.labels, crowns.masks.to("cpu"), side="truth", names=names),
        _crowns(rgb, found.boxes_xyxy_px[sure], found.labels[sure], masks, side="found", names=names),
    ]
    truth = batch.semantic[b, :height, :width].cpu().numpy()
    if found.semantic is not None and (truth != IGNORE).any():
        covers = cover_colours(spec)
        panels += [_cover(rgb, truth, covers, "land cover, truth")]
        panels += [_cover(rgb, found.semantic.numpy(), covers, "land cover, found")]
    density = batch.density[b, : -(-height // DENSITY_STRIDE), : -(-width // DENSITY_STRIDE)].cpu().numpy()
    canopy = found.density is not None and bool((density >= 0).any())
    if found.density is not None and canopy:
        panels += [_share(rgb, density, "canopy, truth"), _share(rgb, found.density.numpy(), "canopy, found")]
    shown = _grid(panels)
    entries = _entries(spec, found, truth, least=least, canopy=canopy)
    return Picture(name=_file_name(batch.pictures[b]), rgb=_above(shown, _legend(shown.width, entries)))


def _file_name(picture: str) -> str:
    return "val_" + "".join(c if c.isalnum() else "_" for c in picture)


def _display(image: Tensor) -> Rgb:
    """The first three bands (or one, thrice), stretched between their 1st and 99th percentile."""
    data = image.float().cpu().numpy()
    data = data[:3] if data.shape[0] >= 3 else np.repeat(data[:1], 3, axis=0)
    low, high = np.percentile(data, (1, 99)) if data.size else (0.0, 1.0)
    scaled = np.clip((data - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.ascontiguousarray(scaled.transpose(1, 2, 0).astype(np.uint8))


def _tally(labels: Tensor, names: Sequence[str]) -> str:
    counts = [f"{int((labels == k).sum())} {name.removesuffix('_tree')}" for k, name in enumerate(names, 1)]
    return ", ".join(counts)


def _zoom(rgb: Rgb) -> int:
    return max(1, round(PANEL_PX / int(max(rgb.shape[:2]))))


def crown_colours(spec: InputSpec) -> list[Colour]:
    """One a crown class, label 1 first."""
    return [rgb_of(colour) for colour in colours_of(spec.instance_classes).values()]


def cover_colours(spec: InputSpec) -> list[Colour]:
    """One a semantic class, in order; a crown's class has one colour in all panels."""
    crowns = dict(zip(spec.instance_classes, crown_colours(spec), strict=True))
    return [crowns.get(name, COVER_COLOURS[k % len(COVER_COLOURS)]) for k, name in enumerate(spec.semantic_classes)]


def _crowns(
    rgb: Rgb,
    boxes_xyxy_px: Tensor,
    labels: Tensor,
    masks: CroppedMasks | None,
    *,
    side: str,
    names: Sequence[str],
) -> Image.Image:
    """One side, truth or found."""
    colours = [rgb_of(colour) for colour in colours_of(names).values()]
    zoom = _zoom(rgb)
    panel = Image.fromarray(rgb).resize((rgb.shape[1] * zoom, rgb.shape[0] * zoom), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(panel)
    with_mask = masks.has_mask.tolist() if masks is not None else [False] * len(labels)
    for i, (box, label) in enumerate(zip(boxes_xyxy_px.tolist(), labels.tolist(), strict=True)):
        colour = colours[label - 1]
        if masks is not None and with_mask[i]:
            x, y, crop = masks.crop(i)
            _outline(panel, crop.numpy(), (x * zoom, y * zoom), zoom, colour)
        else:
            pen.rectangle([v * zoom for v in box], outline=colour, width=2)
    return _titled(panel, f"{side}: {_tally(labels, names)}")


def _outline(
    panel: Image.Image, crop: npt.NDArray[np.uint8], at: tuple[int, int], zoom: int, colour: tuple[int, int, int]
) -> None:
    """Paint the rim of a bitmap, two pixels wide."""
    big = np.pad(np.kron(crop, np.ones((zoom, zoom), np.uint8)), 2)
    core = big.copy()
    for axis in (0, 1):
        for shift in (-2, -1, 1, 2):
            core &= np.roll(big, shift, axis)
    rim = Image.fromarray((big & ~core & 1) * np.uint8(255))
    panel.paste(colour, (at[0] - 2, at[1] - 2), rim)


def _cover(rgb: Rgb, classes: npt.NDArray[np.uint8], colours: Sequence[Colour], title: str) -> Image.Image:
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    mixed = (0.35 * rgb + 0.65 * table[classes]).astype(np.uint8)
    mixed[classes == IGNORE] = rgb[classes == IGNORE] // 3
    zoom = _zoom(rgb)
    return _titled(
        Image.fromarray(mixed).resize((rgb.shape[1] * zoom, rgb.shape[0] * zoom), Image.Resampling.NEAREST), title
    )


def _share(rgb: Rgb, cells: npt.NDArray[np.float32], title: str) -> Image.Image:
    """Canopy cover of each cell of `DENSITY_STRIDE` px, 0 to 1; below 0 it is unknown."""
    value = np.kron(cells, np.ones((DENSITY_STRIDE, DENSITY_STRIDE), np.float32))[: rgb.shape[0], : rgb.shape[1]]
    tint = np.stack([np.interp(value, (0.0, 0.5, 1.0), band) for band in zip(*COVER_SHARE, strict=True)], axis=2)
    mixed = (0.35 * rgb + 0.65 * tint).astype(np.uint8)
    mixed[value < 0] = rgb[value < 0] // 3
    zoom = _zoom(rgb)
    return _titled(
        Image.fromarray(mixed).resize((rgb.shape[1] * zoom, rgb.shape[0] * zoom), Image.Resampling.NEAREST), title
    )


def _entries(
    spec: InputSpec, found: Prediction, truth: npt.NDArray[np.uint8], *, least: Least, canopy: bool
) -> list[tuple[str, list[tuple[str, Colour]]]]:
    """Lines of the legend: what they are about, and names with their colours."""
    crowns = list(zip(spec.instance_classes, crown_colours(spec), strict=True))
    each = least[1:] if isinstance(least, tuple) else (least,)
    told = " / ".join(f"{score:g}" for score in each)  # in the order of the names that follow
    out = [(f"crowns, found ones from a score of {told} on:", crowns)]
    if found.semantic is not None and (truth != IGNORE).any():
        seen = {*np.unique(truth).tolist(), *np.unique(found.semantic.numpy()).tolist()}
        named = zip(spec.semantic_classes, cover_colours(spec), strict=True)
        out.append(("land cover:", [one for k, one in enumerate(named) if k in seen]))
    if canopy:
        out.append(("canopy cover of a cell:", list(zip(("0 %", "50 %", "100 %"), COVER_SHARE, strict=True))))
    return out


LINE_PX, TYPE_PX = 20, 13


def _legend(width: int, entries: Sequence[tuple[str, Sequence[tuple[str, Colour]]]]) -> Image.Image:
    """Names behind squares of their colours, wrapped at `width`."""
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    words: list[tuple[int, int, str, Colour | None]] = []
    line = 0
    for title, names in entries:
        x = 6
        for text, colour in [(title, None), *names]:
            needs = round(measure.textlength(text, font_size=TYPE_PX)) + (30 if colour else 12)
            if x > 6 and x + needs > width:
                x, line = 6, line + 1
            words.append((x, line, text, colour))
            x += needs
        line += 1
    out = Image.new("RGB", (width, line * LINE_PX + 8), PAPER)
    pen = ImageDraw.Draw(out)
    for x, row, text, colour in words:
        y = row * LINE_PX + 4
        if colour:
            pen.rectangle((x, y + 3, x + 11, y + 14), fill=colour)
        pen.text((x + (16 if colour else 0), y), text, fill=INK, font_size=TYPE_PX)
    return out


def _above(shown: Image.Image, legend: Image.Image) -> Rgb:
    out = Image.new("RGB", (shown.width, shown.height + legend.height), PAPER)
    out.paste(shown, (0, 0))
    out.paste(legend, (0, shown.height))
    return np.asarray(out, dtype=np.uint8)


def _titled(panel: Image.Image, title: str) -> Image.Image:
    out = Image.new("RGB", (panel.width, panel.height + 22), PAPER)
    out.paste(panel, (0, 22))
    ImageDraw.Draw(out).text((6, 4), title, fill=INK, font_size=14)
    return out


def _grid(panels: list[Image.Image]) -> Image.Image:
    """Two panels a row, truth beside prediction; all in one row where they are tall."""
    width, height = panels[0].size
    columns = len(panels) if height > 1.5 * width else 2
    rows = -(-len(panels) // columns)
    out = Image.new("RGB", (columns * (width + 4) - 4, rows * (height + 4) - 4), PAPER)
    for i, panel in enumerate(panels):
        out.paste(panel, ((i % columns) * (width + 4), (i // columns) * (height + 4)))
    return out
