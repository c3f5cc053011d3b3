"""What the metrics keep of one picture: small, plain, on the CPU, ready to be gathered from other ranks.

Truth and prediction are clipped alike to the picture's core (see structures.Sample), so that a picture cut into
grid windows counts every pixel once.

A crown is counted where its centre lies in the core. Truth brings the centre of the whole crown, so that exactly one
window counts it, however large it is. A detection ends where its window ends, and its centre has to be guessed there:

- along an axis in which an inner edge of the window cut it, it is taken to be at least as long as across (crowns are
  about as wide as they are high), so the centre moves outwards; for a round crown cut along one axis this is exact;
- one that was cut along both axes says nothing of its size and is not counted.

No crown that fits into the overlap of two windows is cut where its centre lies in the core, so neither guess touches
those; `data check` warns of larger ones. Ground of ignored regions is left out of the counts of both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval.core import mask as rle_codec
from torch import Tensor

from cabruca.metrics.segmentation import confusion
from cabruca.metrics.survey import Least, Survey, SurveySettings, sure, take_survey
from cabruca.structures import Batch, CroppedMasks, Edges, Prediction

Rle = dict[str, Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CrownSet:
    """N crowns, clipped to the core, in pixels of the core.

    Attributes:
        boxes_xywh_px: `[N, 4]`; labels: `[N]`; scores: `[N]` (1 for truth).
        masks: compressed RLE of the core, None where a crown has no mask.
        counted: bool `[N]`, the crown's centre lies in the core, so that no neighbour counts it again, and in no
            ignored region of its class.
    """

    boxes_xywh_px: Floats
    labels: Ints
    scores: Floats
    masks: list[Rle | None]
    counted: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PictureRecord:
    """One picture's truth, predictions and pixel counts.

    Attributes:
        picture: its stable id; size_hw_px: of the core; gsd_m: metres a pixel or None.
        truth, found: crowns. ignored: regions where detections are neither right nor wrong, label 0 = of every class.
        confusion: `[K, K]` pixels, truth by row; None without semantic truth or head.
        at_cap: the cap may have cost crowns, see `at_cap`.
        survey: what the agroforestry metrics need of it; None where they are switched off.
    """

    picture: str
    size_hw_px: tuple[int, int]
    gsd_m: float | None
    truth: CrownSet
    found: CrownSet
    ignored: CrownSet
    confusion: Ints | None
    at_cap: bool
    survey: Survey | None = None


def picture_records(
    batch: Batch,
    predictions: Sequence[Prediction],
    *,
    num_semantic_classes: int,
    min_visible_share: float,
    max_detections: int,
    score_threshold: Least = 0.0,
    survey: SurveySettings | None = None,
) -> list[PictureRecord]:
    """Records of a batch.

    Args:
        max_detections: of a picture, the cap. score_threshold: found crowns count from here on.
        survey: how the agroforestry metrics look at it; None: not at all.
        min_visible_share: a crown cut by the core's edge takes part while this share of it lies inside.
    """
    out = []
    for b, core in enumerate(batch.cores_xyxy_px):
        found = predictions[b].on_known_ground(batch.known[b].cpu())
        crowns = batch.crowns[b]
        regions = crowns.ignored.to("cpu")
        truth = _Raw(
            _floats(crowns.boxes_xyxy_px),
            crowns.labels.cpu().numpy(),
            np.ones(len(crowns)),
            crowns.masks.to("cpu"),
            _floats(crowns.centre_xy_px),
        )
        boxes = _floats(found.boxes_xyxy_px)
        centres = guessed_centres(boxes, batch.sizes_hw_px[b], batch.inner_edges[b])
        prediction = _Raw(boxes, found.labels.numpy(), found.scores.numpy(), found.masks, centres)
        ignored = _Raw(
            _floats(regions.boxes_xyxy_px),
            regions.labels.numpy(),
            np.ones(len(regions)),
            regions.masks,
            np.full((len(regions), 2), np.nan),
        )
        pixels = None
        if found.semantic is not None:
            x0, y0, x1, y1 = core
            pixels = confusion(
                batch.semantic[b, y0:y1, x0:x1].cpu(), found.semantic[y0:y1, x0:x1], num_semantic_classes
            )
        out.append(
            PictureRecord(
                picture=batch.pictures[b],
                size_hw_px=(core[3] - core[1], core[2] - core[0]),
                gsd_m=batch.gsd_m[b],
                truth=_clip(truth, core, min_visible_share, ignored),
                found=_clip(prediction, core, min_visible_share, ignored),
                ignored=_clip(ignored, core, 0.0),
                confusion=pixels if pixels is not None and pixels.sum() > 0 else None,
                at_cap=at_cap(prediction, len(crowns), max_detections, score_threshold),
                survey=None
                if survey is None
                else take_survey(
                    batch,
                    b,
                    found,
                    survey,
                    centres=centres,
                    counted=_survey_counts(truth, prediction, core, ignored, _lines(batch, b)),
                ),
            )
        )
    return out


@dataclass(frozen=True)
class _Raw:
    """Crowns as they come, in pixels of the window: `[N, 4]`, `[N]`, `[N]`, masks, `[N, 2]`."""

    boxes_xyxy_px: Floats
    labels: Ints
    scores: npt.NDArray[Any]
    masks: CroppedMasks | None
    centre_xy_px: Floats


def _floats(values: Tensor) -> Floats:
    return values.cpu().numpy().astype(np.float64)


def at_cap(found: _Raw, true: int, max_detections: int, score_threshold: Least) -> bool:
    """Whether the cap may have cost a picture with `true` crowns some that would be counted.

    As many count as the cap allows, and at least half as many are there: a network that calls everything a crown, as
    one does in its first epochs, finds no more with a larger cap but more that is wrong.
    """
    counted = int(sure(found.scores, found.labels, score_threshold).sum())
    return counted >= max_detections and 2 * true >= max_detections


CUT_PX, CUT_SHARE = 2.0, 0.05
"""A detection that ends within this many pixels, or this share of its longer side, of an inner edge was cut there."""

SEAM_PX, SEAM_SHARE = 2.0, 0.1
"""Two windows may differ by so many pixels, or this share of a crown's longer side, on where its centre is."""


def guessed_centres(boxes_xyxy_px: Floats, size_hw_px: tuple[int, int], inner_edges: Edges) -> Floats:
    """Centres `[N, 2]` of detections `[N, 4]` whose window may have cut them (see the module), NaN where unknown."""
    low, high = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:]
    side = high - low
    longest = side.max(axis=1, initial=0, keepdims=True)
    near = np.maximum(CUT_PX, CUT_SHARE * longest)
    size = np.array(size_hw_px[::-1], dtype=np.float64)
    first = (low <= near) & np.array(inner_edges[:2])
    last = (high >= size - near) & np.array(inner_edges[2:])
    centre = (low + high) / 2
    hidden = (longest - side) / 2
    centre = centre + np.where(last & ~first, hidden, 0) - np.where(first & ~last, hidden, 0)
    centre[(first | last).all(axis=1)] = np.nan
    return centre


def _clip(
    raw: _Raw, core: tuple[int, int, int, int], min_visible_share: float, ignored: _Raw | None = None
) -> CrownSet:
    boxes = raw.boxes_xyxy_px
    x0, y0, x1, y1 = core
    low, high = np.array([x0, y0, x0, y0]), np.array([x1, y1, x1, y1])
    inside = np.clip(boxes, low, high)
    full = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = (inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])
    at_home = _counted(raw, core, None)
    # at home it takes part however little shows: at the corner of four cores each shows a quarter
    keep = np.nonzero((left > np.maximum(min_visible_share * full - 1e-9, 0)) | at_home)[0]
    counted = _counted(raw, core, ignored)
    inside = inside - np.array([x0, y0, x0, y0])
    xywh = np.concatenate([inside[:, :2], inside[:, 2:] - inside[:, :2]], axis=1)
    return CrownSet(
        boxes_xywh_px=xywh[keep],
        labels=raw.labels.astype(np.int64)[keep],
        scores=np.asarray(raw.scores, dtype=np.float64)[keep],
        masks=[None if raw.masks is None else _encode(raw.masks, int(i), core) for i in keep],
        counted=counted[keep],
    )


def _counted(
    raw: _Raw, core: tuple[int, int, int, int], ignored: _Raw | None, reach: Floats | float = 0.0
) -> npt.NDArray[np.bool_]:
    """bool `[N]`: the centre lies in the core (`reach`, `[N, 4]` px, beyond its edges), and in no ignored region of
    its class."""
    centre = raw.centre_xy_px
    edges = np.array(core) + np.multiply(reach, (-1, -1, 1, 1))
    low, high = edges[..., :2], edges[..., 2:]
    at_home: npt.NDArray[np.bool_] = np.all((centre >= low) & (centre < high), axis=1)
    return at_home if ignored is None else at_home & ~_inside(centre, raw.labels, ignored)


def _lines(batch: Batch, b: int) -> Edges:
    """Edges of the core beyond which another window of the picture counts."""
    (x0, y0, x1, y1), (height, width) = batch.cores_xyxy_px[b], batch.sizes_hw_px[b]
    left, top, right, bottom = batch.inner_edges[b]
    return left or x0 > 0, top or y0 > 0, right or x1 < width, bottom or y1 < height


def _survey_counts(
    truth: _Raw, found: _Raw, core: tuple[int, int, int, int], ignored: _Raw, lines: Edges
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of true and of found crowns, which ones the core brings to its plot; of found ones, which stand at its edge.

    Two windows see one crown a pixel apart, on either side of the line between their cores, so that both or neither
    would have it. Found crowns that the window shows whole come along from a band on the far side too; the plot puts
    together what both windows brought.
    """
    boxes = found.boxes_xyxy_px
    sides = boxes[:, 2:] - boxes[:, :2]
    band = np.maximum(SEAM_PX, SEAM_SHARE * sides.max(axis=1, initial=0, keepdims=True)) * np.array(lines)
    whole = np.all(found.centre_xy_px == (boxes[:, :2] + boxes[:, 2:]) / 2, axis=1)
    own = _counted(found, core, ignored) | (whole & _counted(found, core, ignored, band))
    seam = _counted(found, core, None, 2 * band) & ~_counted(found, core, None, -2 * band)
    return _counted(truth, core, ignored), own, seam


def _inside(centre: Floats, labels: Ints, regions: _Raw) -> npt.NDArray[np.bool_]:
    """bool `[N]`: the centre lies in a region of that class, or of every class: in its mask, else in its box."""
    box = regions.boxes_xyxy_px[None]
    within = np.all((centre[:, None] >= box[..., :2]) & (centre[:, None] < box[..., 2:]), axis=2)
    same = (regions.labels[None] == labels[:, None]) | (regions.labels[None] == 0)
    within &= same
    masks = regions.masks
    for k in np.flatnonzero(within.any(axis=0)).tolist() if masks is not None else []:
        if masks is not None and masks.has_mask[k]:
            x, y, crop = masks.crop(k)
            rows = np.flatnonzero(within[:, k])
            column, row = np.floor(centre[rows]).astype(np.intp).T - np.array([[x], [y]])
            shown = (column >= 0) & (column < crop.shape[1]) & (row >= 0) & (row < crop.shape[0])
            pixels = crop.numpy()[row.clip(0, crop.shape[0] - 1), column.clip(0, crop.shape[1] - 1)]
            within[rows, k] = shown & (pixels > 0)
    return np.asarray(within.any(axis=1))


def _encode(masks: CroppedMasks, i: int, core: tuple[int, int, int, int]) -> Rle | None:
    """Compressed RLE of crown `i` within the core, from its own rectangle only."""
    if int(masks.rect_xywh_px[i, 2]) * int(masks.rect_xywh_px[i, 3]) == 0:
        return None
    x, y, crop = masks.crop(i)
    x0, y0, x1, y1 = core
    part = crop[max(0, y0 - y) : max(0, y1 - y), max(0, x0 - x) : max(0, x1 - x)].numpy()
    return rle_of_crop(part, max(x - x0, 0), max(y - y0, 0), height=y1 - y0, width=x1 - x0)


def rle_of_crop(crop: npt.NDArray[Any], x: int, y: int, *, height: int, width: int) -> Rle:
    """Compressed COCO RLE of a `[h, w]` bitmap that lies at (x, y) of a height x width picture.

    RLE runs down the columns; only the crop's own pixels are touched.
    """
    col, row = np.nonzero(crop.T)
    position = (col + x) * height + row + y
    breaks = np.nonzero(np.diff(position) != 1)[0]
    first = position[np.concatenate([[0], breaks + 1])] if len(position) else position
    last = position[np.concatenate([breaks, [len(position) - 1]])] + 1 if len(position) else position
    edges = np.stack([first, last], axis=1).reshape(-1)
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    if len(edges) and counts[-1] == 0:  # COCO writes no empty run at the end
        counts = counts[:-1]
    rle: Rle = rle_codec.frPyObjects({"counts": counts.tolist(), "size": [height, width]}, height, width)
    return rle
