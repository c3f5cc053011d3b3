"""The pictures of truth beside prediction: panels, colours, outlines where the crowns are."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from drawn import SPEC, drawn_sample, perfect

from cabruca.pictures import COVER_SHARE, cover_colours, crown_colours, draw_comparison
from cabruca.structures import IGNORE, CroppedMasks, Prediction, Sample, collate

TITLE_PX, GAP_PX, ZOOM = 22, 4, 4
CROWN_COLOURS, COVER_COLOURS = crown_colours(SPEC), cover_colours(SPEC)
"""128 px are enlarged four times to 512."""


def draw(sample: Sample, found: Prediction) -> npt.NDArray[np.uint8]:
    return draw_comparison(collate([sample]), found, 0, SPEC, 0.5).rgb


def rows_of(rgb: npt.NDArray[np.uint8], height: int = 128) -> int:
    """How many rows of panels there are; what is left is the legend."""
    rows, legend = divmod(rgb.shape[0] + GAP_PX, height * ZOOM + TITLE_PX + GAP_PX)
    assert 20 < legend < 200
    return rows


def panel(rgb: npt.NDArray[np.uint8], row: int, column: int, hw: tuple[int, int] = (128, 128)) -> npt.NDArray[np.uint8]:
    """One panel without its title."""
    h, w = hw[0] * ZOOM, hw[1] * ZOOM
    y, x = row * (h + TITLE_PX + GAP_PX) + TITLE_PX, column * (w + GAP_PX)
    return rgb[y : y + h, x : x + w]


def coloured(part: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    out: npt.NDArray[np.bool_] = (part == np.array(colour)).all(axis=2)
    return out


def test_six_panels_two_a_row_with_a_name() -> None:
    sample = drawn_sample([(40, 40, 14, 1)])
    picture = draw_comparison(collate([sample]), perfect(sample), 0, SPEC, 0.5)
    assert picture.rgb.shape[1:] == (2 * 512 + GAP_PX, 3)
    assert rows_of(picture.rgb) == 3
    assert picture.rgb.dtype == np.uint8
    assert picture.name == "val_0_0_0"


def test_outlines_lie_on_the_rim_of_the_masks_in_the_colour_of_their_class() -> None:
    discs = [(40.0, 40.0, 14.0, 1), (90.0, 80.0, 20.0, 2)]
    sample = drawn_sample(discs)
    rgb = draw(sample, perfect(sample))
    for column in (0, 1):
        part = panel(rgb, 0, column)
        rows, columns = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
        for x, y, radius, label in discs:
            rim = coloured(part, CROWN_COLOURS[label - 1])
            distance = np.hypot(columns - x * ZOOM, rows - y * ZOOM)
            assert rim.sum() > 2 * np.pi * radius * ZOOM, "a line about two pixels wide"
            assert distance[rim].min() > (radius - 2) * ZOOM - 2
            assert distance[rim].max() < (radius + 1) * ZOOM + 2


def test_doubtful_predictions_are_left_out_and_boxes_drawn_without_masks() -> None:
    sample = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)])
    right = perfect(sample)
    scores = torch.tensor([0.9, 0.2])
    found = dataclasses.replace(right, scores=scores, masks=CroppedMasks.empty(2))
    part = panel(draw(sample, found), 0, 1)
    assert not coloured(part, CROWN_COLOURS[1]).any()
    rows, columns = np.nonzero(coloured(part, CROWN_COLOURS[0]))
    box = right.boxes_xyxy_px[0].numpy() * ZOOM
    np.testing.assert_allclose([columns.min(), rows.min(), columns.max(), rows.max()], box, atol=1.01)
    inner = coloured(part, CROWN_COLOURS[0])[int(box[1]) + 4 : int(box[3]) - 4, int(box[0]) + 4 : int(box[2]) - 4]
    assert not inner.any(), "a rectangle, not filled"


def test_a_prediction_of_another_class_may_have_no_mask() -> None:
    sample = drawn_sample([(40, 40, 14, 1), (90, 80, 20, 2)])
    right = perfect(sample)
    first = right.masks.select(torch.tensor([0]))  # type: ignore[union-attr]
    rect = torch.cat([first.rect_xywh_px, torch.zeros(1, 4, dtype=torch.int64)])
    part = panel(draw(sample, dataclasses.replace(right, masks=CroppedMasks(first.pixels, rect))), 0, 1)
    rows, columns = np.nonzero(coloured(part, CROWN_COLOURS[1]))
    box = right.boxes_xyxy_px[1].numpy() * ZOOM
    np.testing.assert_allclose([columns.min(), rows.min(), columns.max(), rows.max()], box, atol=1.01)


def test_land_cover_is_tinted_and_what_is_unknown_dark() -> None:
    sample = drawn_sample([(40, 40, 14, 2)])
    semantic = sample.semantic.clone()  # type: ignore[union-attr]
    semantic[100:] = IGNORE
    sample = dataclasses.replace(sample, image=torch.full_like(sample.image, 0.5), semantic=semantic)
    part = panel(draw(sample, perfect(drawn_sample([]))), 1, 0)
    shade = part[40 * ZOOM, 40 * ZOOM]
    np.testing.assert_allclose(shade, 0.65 * np.array(COVER_COLOURS[2]), atol=1)
    assert part[110 * ZOOM, 40 * ZOOM].max() == 0, "a third of a picture that is stretched to black"


def test_without_land_cover_there_are_two_panels() -> None:
    sample = drawn_sample([(40, 40, 14, 1)], masks=False)
    picture = draw(sample, perfect(sample))
    assert picture.shape[1:] == (2 * 512 + GAP_PX, 3)
    assert rows_of(picture) == 1


def test_canopy_cover_is_a_colour_a_cell_and_what_is_unknown_dark() -> None:
    sample = drawn_sample([(64, 64, 30, 1)])
    density = torch.zeros(4, 4)
    density[0, 0], density[0, 1], density[0, 2] = 1.0, 0.5, -1.0
    sample = dataclasses.replace(sample, image=torch.full_like(sample.image, 0.5), density=density)
    found = dataclasses.replace(perfect(sample), density=torch.full((4, 4), 0.25))
    rgb = draw(sample, found)
    truth, seen = (panel(rgb, 2, column) for column in (0, 1))
    middle = 16 * ZOOM
    expected = [0.65 * np.array(COVER_SHARE[k]) for k in (2, 1)] + [np.zeros(3), 0.65 * np.array(COVER_SHARE[0])]
    for column, colour in enumerate(expected):
        np.testing.assert_allclose(truth[middle, middle + 32 * ZOOM * column], colour, atol=1)
    between = 0.65 * (np.array(COVER_SHARE[0]) + np.array(COVER_SHARE[1])) / 2
    np.testing.assert_allclose(seen[middle, middle], between, atol=1)


def test_the_legend_has_the_colours_of_what_is_there() -> None:
    """Land cover: background and shade; cacao, which no pixel is, is not among it."""
    sample = drawn_sample([(40, 40, 14, 2)])
    rgb = draw(sample, perfect(sample))
    legend = rgb[3 * (512 + TITLE_PX + GAP_PX) - GAP_PX :]
    shown = {colour: int(coloured(legend, colour).sum()) for colour in (*CROWN_COLOURS, *COVER_COLOURS, *COVER_SHARE)}
    square = 12 * 12
    assert COVER_COLOURS[1:3] == CROWN_COLOURS, "a class has one colour in all panels"
    for colour in (CROWN_COLOURS[0], COVER_COLOURS[0], *COVER_SHARE):
        assert square <= shown[colour] < square + 30, colour  # grey is in the letters too
    assert shown[CROWN_COLOURS[1]] == 2 * square, "a crown, and land cover"
    for colour in (COVER_COLOURS[3], COVER_COLOURS[5]):
        assert shown[colour] < 30, colour


def test_tall_pictures_stand_in_one_row_and_padding_is_cut() -> None:
    sample = drawn_sample([(20, 40, 14, 1)])
    sample = dataclasses.replace(sample, size_hw_px=(128, 64))
    found = dataclasses.replace(perfect(sample), semantic=sample.semantic[:, :64], density=None)  # type: ignore[index]
    picture = draw(sample, found)
    assert picture.shape[1] == 4 * 256 + 3 * GAP_PX
    assert rows_of(picture) == 1
    assert draw(sample, dataclasses.replace(found, density=torch.zeros(4, 2))).shape[1] == 6 * 256 + 5 * GAP_PX


def test_one_band_is_grey_and_of_four_the_first_three_are_shown() -> None:
    for bands in (1, 4):
        sample = drawn_sample([], bands=bands)
        sample = dataclasses.replace(sample, image=torch.rand(bands, 128, 128))
        part = panel(draw(sample, perfect(sample)), 0, 0).astype(int)
        assert (np.ptp(part, axis=2).max() == 0) == (bands == 1)


def test_each_class_is_drawn_from_its_own_score() -> None:
    sample = drawn_sample([(40.0, 40.0, 14.0, 1), (90.0, 80.0, 20.0, 2)])
    found = dataclasses.replace(perfect(sample), scores=torch.tensor([0.4, 0.7]))
    rgb = draw_comparison(collate([sample]), found, 0, SPEC, (0.5, 0.3, 0.8)).rgb
    assert coloured(panel(rgb, 0, 1), CROWN_COLOURS[0]).any()
    assert not coloured(panel(rgb, 0, 1), CROWN_COLOURS[1]).any()
    assert coloured(panel(rgb, 0, 0), CROWN_COLOURS[1]).any(), "the truth is whole"
