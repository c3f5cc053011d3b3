"""Numbers of drawn sets whose answer is known; `cabruca data stats`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from drawn_data import DataSet, box, crown, disc
from PIL import Image

from cabruca.cli.main import main
from cabruca.config.load import to_yaml
from cabruca.config.schema import Config
from cabruca.data.stats import config_stats, plain_stats
from cabruca.data.stats_numbers import SetStats, Spread, suggest_weights
from cabruca.errors import DataError

RADII = (8.0, 10.0, 14.0)


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["data", "stats", *map(str, args)])


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[DataSet, list[dict[str, Any]]]:
    """Two pictures of 128 px. First, 0.1 m a pixel: three cacao discs and a shade box of 30 x 20 px. Second, of unknown
    resolution: one cacao disc, a patch of understory, a crowd."""
    data = DataSet(tmp_path / "set")
    data.picture(np.full((3, 128, 128), 90, np.uint8), "a.tif", gsd_m=0.1)
    data.picture(np.full((3, 128, 128), 90, np.uint8), "b.tif")
    places = ((20, 20), (90, 30), (100, 100))
    rows = [crown(disc(128, 128, x, y, r), ident=i) for i, ((x, y), r) in enumerate(zip(places, RADII, strict=True), 1)]
    rows.append(box(20, 70, 30, 20, ident=4, category=2))
    rows.append(crown(disc(128, 128, 40, 40, 8), ident=5, image=2))
    patch = np.zeros((128, 128), bool)
    patch[96:, :] = True
    rows.append(crown(patch, ident=6, category=3, image=2))
    rows.append({**crown(disc(128, 128, 100, 40, 12), ident=7, image=2), "iscrowd": 1})
    return data, rows


@pytest.fixture
def config(drawn: tuple[DataSet, list[dict[str, Any]]], tmp_path: Path) -> Config:
    data, rows = drawn
    return data.config(rows, tile_size=64, test_annotations=str(tmp_path / "no.json"))


def test_crowns_sizes_and_tiles_of_drawn_discs(config: Config) -> None:
    train, val = config_stats(config)
    assert (train.name, val.name) == ("train", "val")
    cacao, shade = train.classes["cacao_tree"], train.classes["shade_tree"]
    assert (cacao.crowns, cacao.with_mask, cacao.pictures) == (4, 4, 2)
    assert (shade.crowns, shade.with_mask, shade.pictures) == (1, 0, 1)
    assert cacao.diameter_px is not None
    assert cacao.diameter_m is not None
    assert shade.diameter_px == Spread(*[25.0] * 6), "(30 + 20) / 2"
    areas = [disc(128, 128, 60, 60, r).sum() for r in sorted((*RADII, 8.0))]
    diameters = [2 * math.sqrt(a / math.pi) for a in areas]
    assert cacao.diameter_px.median == pytest.approx((diameters[1] + diameters[2]) / 2, rel=0.01)
    assert cacao.diameter_px.max == pytest.approx(28, rel=0.01)
    assert cacao.diameter_m.max == pytest.approx(2.8, rel=0.01)
    assert cacao.diameter_m.min == pytest.approx(1.6, rel=0.02)
    assert (train.pictures, train.gsd_unknown, train.crowds, train.ignored) == (2, 1, 1, 0)
    assert train.megapixels == pytest.approx(2 * 128 * 128 / 1e6)
    assert train.gsd_m == Spread(*[0.1] * 6)
    # first picture: one crown in each cell of 64 px; second: one in the first cell
    assert train.crowns_per_tile == Spread(0, 0, 1, 1, 1, 5 / 8)
    assert train.empty_tiles == 3 / 8
    assert train.crowns_per_picture == Spread(1, 1.75, 2.5, 3.25, 4, 2.5)


def test_land_cover_counts_each_pixel_once_and_what_is_unknown(config: Config) -> None:
    """The pictures are read in windows that overlap; the shade box and the crowd are unknown ground."""
    grid = config.model_copy(update={"validation": config.validation.model_copy(update={"max_side_px": 64})})
    (whole, _), (cut, _) = config_stats(config), config_stats(grid)
    assert whole.land_cover == cut.land_cover
    assert whole.land_cover is not None
    cacao = sum(disc(128, 128, 60, 60, r).sum() for r in (*RADII, 8.0))
    unknown = 30 * 20 + disc(128, 128, 60, 60, 12).sum()
    known = 2 * 128 * 128 - unknown
    assert whole.unknown_cover == pytest.approx(unknown / (2 * 128 * 128))
    assert whole.land_cover["understory"] == pytest.approx(32 * 128 / known)
    assert whole.land_cover["cacao_tree"] == pytest.approx(cacao / known, rel=0.01)
    assert sum(whole.land_cover.values()) == pytest.approx(1)
    assert config_stats(config, land_cover=False)[0].land_cover is None


def test_suggested_weights_balance_and_load_as_configuration() -> None:
    assert suggest_weights(np.array([[500, 250, 125, 0, 125, 1]])) == (0.25, 0.5, 1.0, 1.0, 1.0, 10.0)
    assert suggest_weights(np.array([[9, 0]])) == (1.0, 1.0)


def test_a_class_is_weighed_by_the_pictures_that_show_it() -> None:
    """Eigen and Fergus: class 1 is half of its one picture, so its frequency is 1/2 however many pictures lack it."""
    pixels = np.array([[50, 50, 0], [90, 0, 10], [100, 0, 0], [100, 0, 0]])
    frequency = [340 / 400, 50 / 100, 10 / 100]
    assert suggest_weights(pixels) == tuple(round(min(10, 0.5 / f), 3) for f in frequency)


def test_a_set_as_it_stands_has_its_own_classes(drawn: tuple[DataSet, list[dict[str, Any]]], config: Config) -> None:
    data, _ = drawn
    found = plain_stats(data.folder, data.folder / "truth.json", Config())
    assert {name: c.crowns for name, c in found.classes.items()} == {"cacao_tree": 4, "shade_tree": 1, "understory": 1}
    assert (found.name, found.land_cover, found.class_weights) == ("truth", None, None)


def test_resampled_sets_are_counted_as_the_network_sees_them(drawn: tuple[DataSet, list[dict[str, Any]]]) -> None:
    data, rows = drawn
    data.images = data.images[:1]
    config = data.config(rows[:4], tile_size=64, target_gsd_m=0.2, test_annotations="no.json")
    train = config_stats(config, land_cover=False)[0]
    found = train.classes["cacao_tree"]
    assert found.diameter_px is not None
    assert found.diameter_m is not None
    assert found.diameter_px.max == pytest.approx(14, rel=0.03)
    assert found.diameter_m.max == pytest.approx(2.8, rel=0.03)
    assert train.crowns_per_tile == Spread(*[4.0] * 6), "the whole picture is one tile"


def test_an_empty_set_is_numbers_too(drawn: tuple[DataSet, list[dict[str, Any]]]) -> None:
    data, _ = drawn
    train = config_stats(data.config([], tile_size=64, test_annotations="no.json"))[0]
    assert train.classes["cacao_tree"].diameter_px is None
    assert train.empty_tiles == 1.0
    assert json.dumps(train.to_dict(), allow_nan=False)


def test_the_command_prints_draws_and_gives_json(config: Config, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(config))
    result = run("--config", file, "--out", tmp_path / "plots")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "train: 2 picture(s), 0.0 megapixels, 0.1 m a pixel (1 unknown)"
    assert lines[2].split()[:5] == ["cacao_tree", "4", "80.0%", "4", "2"]
    assert "  not counted: 1 group(s), 0 of ignored categories" in lines
    for name in ("train", "val"):
        with Image.open(tmp_path / "plots" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5, "something is drawn"
    sets = json.loads(run("--config", file, "--json").stdout)["sets"]
    assert sets == [json.loads(json.dumps(one.to_dict())) for one in config_stats(config)]
    weights = next(line for line in lines if "semantic_class_weights" in line).split(": ")[1].split("  #")[0]
    flag = ["config", "validate", str(file), "--set", f"loss.semantic_class_weights={weights}"]
    assert CliRunner().invoke(main, flag).exit_code == 0


@pytest.mark.parametrize(
    "args", [[], ["--images", "x"], ["--annotations", "x"], ["--config", "c", "--images", "x", "--annotations", "y"]]
)
def test_what_to_count_is_said_in_one_way(args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert "give --config FILE, or --images DIR with --annotations FILE" in result.stderr


def test_a_category_without_a_class_is_named(drawn: tuple[DataSet, list[dict[str, Any]]]) -> None:
    data, rows = drawn
    config = data.config(rows)
    coco = json.loads((data.folder / "truth.json").read_text())
    coco["categories"][0]["name"] = "theobroma"
    (data.folder / "truth.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match="categories without a class: theobroma"):
        config_stats(config)


def test_real_crowns_have_their_published_counts(real_data: Callable[[str], Path]) -> None:
    """212 and 52 crowns at 6 cm; 12470 boxes of palms about 10 m wide."""
    planted, palms = real_data("uav_planted_forest"), real_data("oil_palm_uav")
    stats: list[SetStats] = [plain_stats(planted, planted / f"{name}.json", Config()) for name in ("train", "val")]
    assert [one.classes["tree"].crowns for one in stats] == [212, 52]
    assert stats[0].gsd_m is not None
    assert stats[0].gsd_m.median == pytest.approx(0.06, rel=0.05)
    palm = plain_stats(palms, palms / "train.json", Config()).classes["oil_palm"]
    assert (palm.crowns, palm.with_mask) == (12470, 0)
    assert palm.diameter_m is not None
    assert 8 < palm.diameter_m.median < 12


def test_tiles_that_nobody_labelled_are_not_empty_ones(tmp_path: Path) -> None:
    """Tiles of 64 px; the left half is labelled: one tile with a crown, one without, two that nobody looked at."""
    data = DataSet(tmp_path / "half")
    left = [[[[0, 0], [64, 0], [64, 128], [0, 128], [0, 0]]]]
    data.picture(np.full((3, 128, 128), 90, np.uint8), labelled=left)
    train, _ = config_stats(data.config([crown(disc(128, 128, 30, 30, 8))], tile_size=64,
                                        test_annotations=str(tmp_path / "no.json")))  # fmt: skip
    assert train.empty_tiles == 0.5
