"""A validation's `Findings`: gathered from what the metrics have matched and counted, nothing is matched anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cabruca.findings import ClassCurve, Findings
from cabruca.ground import Floats, Ints
from cabruca.metrics.pairing import Matched
from cabruca.metrics.records import PictureRecord
from cabruca.metrics.survey import Least, sure


def findings_of(
    records: Sequence[PictureRecord],
    classes: Sequence[str],
    covers: Sequence[str],
    *,
    score_threshold: Least,
    curves: Sequence[ClassCurve],
    matched: Sequence[Matched] | None,
    pixels: Ints | None,
) -> Findings:
    """Everything that is drawn of a validation.

    Args:
        records: of all windows, each once. classes, covers: names of instance and of semantic classes.
        curves: see `detection.detect`. matched: crowns paired in each plot; None: nobody has paired them.
        pixels: `[C, C]`, summed over the windows.
    """
    counts = picture_counts(records, len(classes), score_threshold)
    diameters, labels, unit = matched_diameters(matched or [])
    return Findings(
        classes=tuple(classes),
        covers=tuple(covers),
        score_threshold=score_threshold,
        curves=tuple(curves),
        pictures=tuple(counts),
        counts=np.stack(list(counts.values())) if counts else np.zeros((0, len(classes), 2), np.int64),
        confusion=None if matched is None else crown_confusion(matched, len(classes)),
        pixels=pixels,
        diameters=diameters,
        labels=labels,
        unit=unit,
        full=tuple(r.picture for r in records if r.at_cap),
    )


def picture_counts(records: Sequence[PictureRecord], classes: int, score_threshold: Least) -> dict[str, Ints]:
    """Picture -> int64 `[K, 2]`, crowns of each class in the truth and found, those of its windows added up. Summed
    over the pictures they are `counts.count_metrics`."""
    out: dict[str, Ints] = {}
    for record in records:
        # a window's id is that of its picture, and where it lies in it
        own = out.setdefault(record.picture.rsplit(":", 2)[0], np.zeros((classes, 2), np.int64))
        for side, crowns in enumerate((record.truth, record.found)):
            kept = crowns.counted & sure(crowns.scores, crowns.labels, score_threshold)
            own[:, side] += np.bincount(crowns.labels[kept], minlength=classes + 1)[1 : classes + 1]
    return out


def crown_confusion(matched: Sequence[Matched], classes: int) -> Ints:
    """int64 `[K + 1, K + 1]`, see `Findings.confusion`: pairs of any species, and what has no partner."""
    out = np.zeros((classes + 1, classes + 1), np.int64)
    for plot, pairs in matched:
        true, found = plot.true.labels, plot.found.labels
        np.add.at(out, (true[pairs.true] - 1, found[pairs.found] - 1), 1)
        missed, extra = np.delete(true, pairs.true), np.delete(found, pairs.found)
        out[:classes, classes] += np.bincount(missed - 1, minlength=classes)
        out[classes, :classes] += np.bincount(extra - 1, minlength=classes)
    return out


def matched_diameters(matched: Sequence[Matched]) -> tuple[Floats, Ints, str]:
    """`[M, 2]` of the pairs, truth and found, `[M]` labels of the truth, and the unit: of the plots in metres where
    there are any, else in px."""
    in_metres = any(plot.in_metres for plot, _ in matched) or not matched
    own = [(plot, pairs) for plot, pairs in matched if plot.in_metres == in_metres]
    sizes = [np.stack([p.true.diameter[m.true], p.found.diameter[m.found]], axis=1) for p, m in own]
    labels = [p.true.labels[m.true] for p, m in own]
    return (
        np.concatenate([np.zeros((0, 2)), *sizes]),
        np.concatenate([np.zeros(0, np.int64), *labels]),
        "m" if in_metres else "px",
    )
