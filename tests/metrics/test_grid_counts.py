"""A picture cut into a grid counts what the whole picture counts, also where crowns are larger than the overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import SPEC, perfect
from drawn_data import DataSet, box, crown, disc

from cabruca.config.schema import ValidationConfig
from cabruca.data.dataset import EvaluationWindows, input_spec
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.records import guessed_centres
from cabruca.runtime import Runtime
from cabruca.structures import Sample, collate

RADIUS = 60
HW = (448, 448)
SIDE, OVERLAP = 256, 64
LINE = 224  # two windows of 256 on 448 px share 64 px, 192 .. 256; the line between the cores lies in their middle
GRIDS = [(SIDE, OVERLAP), (LINE, 0)]
"""Side and overlap of windows whose cores meet at LINE; the second share nothing."""

Places = list[tuple[float, float]]


def windows_of(folder: Path, places: Places, *, side: int, overlap: int, masks: bool) -> list[Sample]:
    data = DataSet(folder)
    data.picture(np.full((3, *HW), 90, np.uint8))
    rows = []
    for i, (x, y) in enumerate(places, 1):
        whole = crown(disc(*HW, x, y, RADIUS), ident=i, category=i % 2 + 1)
        rows.append(whole if masks else box(*whole["bbox"], ident=i, category=i % 2 + 1))
    config = data.config(rows)
    windows = EvaluationWindows(
        folder,
        config.data.val_annotations,
        input_spec(config),
        max_side_px=side,
        overlap=overlap,
        min_visible_share=0.3,
        cache_mb=16,
    )
    return [windows.get(i) for i in range(len(windows))]


def counts(samples: list[Sample]) -> dict[str, float]:
    evaluator = Evaluator(SPEC.instance_classes, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3)
    for sample in samples:
        evaluator.add(collate([sample]), [perfect(sample)])
    return {k: v for k, v in evaluator.compute(Runtime.single()).items() if "count" in k}


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(("side", "overlap"), GRIDS)
@pytest.mark.parametrize("offset", [-70, -59.5, -40, -20, -1, 0, 1, 20, 40, 59.5, 70])
def test_large_crowns_across_a_core_line_count_once(
    tmp_path: Path, offset: float, side: int, overlap: int, masks: bool
) -> None:
    """Crowns of 120 px, windows that share 64 px or fewer: every place of the crown relative to the line."""
    places = [(LINE + offset, 100.0), (80.0, LINE + offset)]
    whole = counts(windows_of(tmp_path / "whole", places, side=1024, overlap=overlap, masks=masks))
    cut = counts(windows_of(tmp_path / "cut", places, side=side, overlap=overlap, masks=masks))
    assert whole["total_count"] == whole["total_count_true"] == 2
    assert cut == whole


@pytest.mark.parametrize(("side", "overlap"), GRIDS)
def test_a_large_crown_at_the_corner_of_four_cores_is_one_tree(tmp_path: Path, side: int, overlap: int) -> None:
    """Each core shows a quarter of it, under min_visible_share; no window shows where a detection of it would end."""
    cut = windows_of(tmp_path, [(LINE, LINE)], side=side, overlap=overlap, masks=True)
    assert len(cut) == 4
    found = counts(cut)
    assert found["total_count_true"] == 1
    assert found["total_count"] == 0, "cut along both axes: not counted, rather than four times"


def test_a_crown_that_fits_the_overlap_counts_once_at_the_corner_too(tmp_path: Path) -> None:
    for shift in (-1.0, -0.25, 0.0, 0.25, 1.0):
        place = (LINE + shift, LINE - shift)
        cut = counts(windows_of(tmp_path / str(shift), [place], side=320, overlap=192, masks=True))
        assert cut["total_count"] == cut["total_count_true"] == 1


def test_no_crown_is_lost_between_two_cores_to_a_rounding(tmp_path: Path) -> None:
    """Centres a hair beside the line, where float32 rounds to either side of it depending on the window."""
    data = DataSet(tmp_path)
    data.picture(np.full((3, *HW), 90, np.uint8))
    hairs = [0.0, 1e-3, 1e-5, 1e-6, 1e-8, -1e-8, -1e-6, -1e-5, -1e-3]
    config = data.config([box(LINE - 10 + h, 20.0 * i, 20, 10, ident=i) for i, h in enumerate(hairs, 1)])
    windows = EvaluationWindows(
        tmp_path,
        config.data.val_annotations,
        input_spec(config),
        max_side_px=SIDE,
        overlap=OVERLAP,
        min_visible_share=0.3,
        cache_mb=16,
    )
    found = counts([windows.get(i) for i in range(len(windows))])
    assert found["total_count_true"] == len(hairs)


def test_the_guess_moves_a_cut_detection_outwards_only() -> None:
    boxes = np.array(
        [[10.0, 10, 50, 50], [216, 100, 256, 200], [200, 216, 256, 256], [0, 100, 40, 200], [0, 90, 256, 100]]
    )
    centres = guessed_centres(boxes, (256, 256), (True, False, True, True))
    np.testing.assert_allclose(centres[0], [30, 30])  # whole
    np.testing.assert_allclose(centres[1], [266, 150])  # cut at the right: taken to be 100 wide
    assert np.isnan(centres[2]).all()  # cut at a corner
    np.testing.assert_allclose(centres[3], [-10, 150])
    np.testing.assert_allclose(centres[4], [128, 95])  # cut at both ends
    np.testing.assert_allclose(guessed_centres(boxes, (256, 256), (False,) * 4), (boxes[:, :2] + boxes[:, 2:]) / 2)


def test_truth_carries_the_centre_of_the_whole_crown(tmp_path: Path) -> None:
    left, right, *_ = windows_of(tmp_path, [(LINE + 20, 100.0)], side=SIDE, overlap=OVERLAP, masks=True)
    assert left.inner_edges == (False, False, True, True)
    assert right.inner_edges == (True, False, False, True)
    torch.testing.assert_close(left.crowns.centre_xy_px, torch.tensor([[LINE + 20.0, 100.0]]))
    torch.testing.assert_close(right.crowns.centre_xy_px, torch.tensor([[LINE + 20.0 - 192, 100.0]]))
    assert float(left.crowns.boxes_xyxy_px[0, 2]) == 256
