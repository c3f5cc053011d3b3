"""Crowns of one class that the mask rasters call another: found where it is so, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_data import CLASSES, DataSet, box, crown, disc, write_raster

from cabruca.config.schema import Config, ModelConfig
from cabruca.data import check_masks
from cabruca.data.check import full_check
from cabruca.data.synthetic import draw_plot

CACAO, SHADE, SIDE = 1, 2, 96
PLACES = ((20, 20), (70, 20), (20, 70))


def check(tmp_path: Path, mask: np.ndarray, crowns: list[dict[str, Any]], **data: Any) -> list[str]:
    """Warnings about the masks of a set of one picture, once: train and val are the same."""
    farm = DataSet(tmp_path)
    rng = np.random.default_rng(0)
    farm.picture(rng.integers(0, 255, (3, *mask.shape)).astype(np.uint8), semantic_mask="mask.tif")
    write_raster(tmp_path / "mask.tif", mask[None].astype(np.uint8))
    return of_masks(farm.config(crowns, **data))


def of_masks(config: Config) -> list[str]:
    return [w for w in full_check(config).warnings if w.startswith("train") and "semantic masks say" in w]


def crowns(category: int, radius: float = 14) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """bool `[SIDE, SIDE]` of three crowns, and their annotations."""
    masks = [disc(SIDE, SIDE, x, y, radius) for x, y in PLACES]
    return np.any(masks, axis=0), [crown(m, ident=k, category=category) for k, m in enumerate(masks, 1)]


def test_crowns_that_the_mask_calls_another_crown_class_are_a_warning(tmp_path: Path) -> None:
    where, rows = crowns(SHADE)
    (line,) = check(tmp_path, np.where(where, CACAO, 3), rows)
    assert line == (
        "train: the semantic masks say 'cacao_tree' on 100% of the pixels of 'shade_tree' crowns, and a crown is one "
        "class; data.category_map renames no masks: map shade_tree to cacao_tree, or write 2 (shade_tree) into the "
        "masks there"
    )


def test_the_category_that_the_map_sends_astray_is_named_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two categories of one class the smaller is wrong: the class as a whole is right for the most part."""
    monkeypatch.setitem(CLASSES[0], "name", "inga")
    where, rows = crowns(SHADE)
    rows[0]["category_id"] = CACAO
    mask = np.where(disc(SIDE, SIDE, *PLACES[0], 14), CACAO, SHADE * where)
    (line,) = check(tmp_path, mask, rows, category_map={"inga": "shade_tree"})
    assert "'cacao_tree' on 100% of the pixels of 'inga' crowns ('shade_tree' by data.category_map)" in line
    assert "map inga to cacao_tree, or write 2 (shade_tree) into" in line


def test_boxes_and_stripes_of_a_large_mask_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_masks, "STRIPE_PX", 7 * SIDE)
    where, rows = crowns(SHADE)
    (line,) = check(tmp_path, np.where(where, CACAO, 0), [*rows, box(40, 40, 20, 20, ident=9, category=2)])
    share = where.sum() / (where.sum() + 400)
    assert f"on {share:.0%} of the pixels" in line


@pytest.mark.parametrize(
    ("below", "why"),
    [
        (SHADE, "the same class"),
        (3, "land cover that is no crown"),
        (0, "background: many leave unlabelled ground so"),
        (255, "unknown"),
    ],
)
def test_what_contradicts_nothing_is_no_warning(tmp_path: Path, below: int, why: str) -> None:
    where, rows = crowns(SHADE)
    mask = np.where(where, below, CACAO)
    mask[: SIDE // 8] = CACAO  # a few pixels beside: outlines are never exact
    assert check(tmp_path, mask, rows) == [], why


def test_few_pixels_are_no_warning(tmp_path: Path) -> None:
    where, rows = crowns(SHADE, radius=4)
    assert check(tmp_path, np.where(where, CACAO, 0), rows) == []


def test_shade_over_cacao_is_no_warning(tmp_path: Path) -> None:
    """The mask shows the small crowns that lie under, or stand out of, a large one: both classes are right there."""
    where, small = crowns(CACAO, radius=24)
    big = np.ones((SIDE, SIDE), dtype=bool)
    big[:, -1] = big[-1] = False
    mask = np.where(where, CACAO, SHADE)
    assert 2 * where[big].sum() > big.sum()
    assert check(tmp_path, mask, [crown(big, ident=9, category=2), *small]) == []
    assert check(tmp_path, mask, [*small, crown(big, ident=9, category=2)]) == []


def test_groups_and_ignored_categories_leave_their_pixels_undecided(tmp_path: Path) -> None:
    where, rows = crowns(SHADE)
    mask = np.where(where, CACAO, 0)
    group = crown(where, ident=9, category=1, iscrowd=1)
    assert check(tmp_path, mask, [*rows, group]) == []
    assert check(tmp_path, mask, [crown(where, category=SHADE, iscrowd=1)]) == [], "no crown is trained there"
    unknown = crown(where, ident=9, category=3)
    assert check(tmp_path, mask, [*rows, unknown], category_map={"understory": "ignore"}) == []


def test_a_crown_class_that_is_no_land_cover_is_no_warning(tmp_path: Path) -> None:
    where, rows = crowns(SHADE)
    model = ModelConfig(num_semantic_classes=3, semantic_class_names=("background", "cacao_tree", "understory"))
    assert check(tmp_path, np.where(where, 1, 0), rows, model=model) == []


def test_the_practice_plot_has_no_contradiction(tmp_path: Path) -> None:
    plot = draw_plot(tmp_path, size_px=256)
    data = {
        "train_dir": str(plot.images_dir),
        "val_dir": str(plot.images_dir),
        "train_annotations": str(plot.train_annotations),
        "val_annotations": str(plot.val_annotations),
    }
    config = Config.model_validate({"data": data})
    assert of_masks(config) == []
    swapped = Config.model_validate(
        {"data": {**data, "category_map": {"cacao_tree": "shade_tree", "shade_tree": "cacao_tree"}}}
    )
    assert len(of_masks(swapped)) == 2
