"""Caps on the crowns of a window: of the training window's size, they grow with larger ones; reached, it is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn import SPEC, light_config
from perfect import Disc, Perfect, plan_of, write_coordinates

from cabruca.evaluation import Trained
from cabruca.model.build import build_model
from cabruca.predict.network import TrainedNetwork
from cabruca.predict.pool import InProcess
from cabruca.predict.run import run
from cabruca.predict.watcher import Silent
from cabruca.runtime import Runtime
from cabruca.structures import Crowns, Sample, collate

SIDE = 64


@pytest.fixture
def network() -> TrainedNetwork:
    """At most 5 crowns and 8 proposals of a window of 64 px; untrained, so each proposal is found as both classes."""
    config = light_config()
    validation = config.validation.model_copy(update={"max_detections": 5, "nms_iou": 0.9})
    config = config.model_copy(
        update={"validation": validation, "model": config.model.model_copy(update={"proposals": 4})}
    )
    spec = dataclasses.replace(SPEC, tile_size=SIDE)
    return TrainedNetwork(Trained(build_model(config, spec), config, spec, None), Runtime.single("cpu"))


def window(side: int, padded: int | None = None) -> Sample:
    padded = padded or side
    noise = torch.rand(len(SPEC.bands), padded, padded, generator=torch.Generator().manual_seed(1))
    valid = torch.zeros(padded, padded, dtype=torch.bool)
    valid[:side, :side] = True
    return Sample(
        image=noise,
        valid=valid,
        crowns=Crowns.empty(),
        semantic=None,
        crown_diameter_px=None,
        density=None,
        key=0,
        picture="noise",
        gsd_m=None,
        size_hw_px=(side, side),
        core_xyxy_px=(0, 0, side, side),
    )


def test_a_larger_window_may_have_more_crowns(network: TrainedNetwork) -> None:
    small = network(collate([window(SIDE)]))[0]
    large = network(collate([window(2 * SIDE)]))[0]
    assert len(small.scores) == 5
    assert len(large.scores) == 20  # 5 of each of four training windows; 8 proposals are 16 at most


def test_the_cap_is_of_each_window_whatever_is_beside_it(network: TrainedNetwork) -> None:
    small, large = network(collate([window(SIDE, padded=2 * SIDE), window(2 * SIDE)]))
    assert (len(small.scores), len(large.scores)) == (5, 20)


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.mark.parametrize(
    ("cap", "tile_size", "times"), [(3, 96, 1), (4, 96, 0), (1, 160, 0), (1, 96, 1), (None, 96, 0)]
)
def test_a_full_window_is_said_once(tmp_path: Path, cap: Any, tile_size: int, times: int) -> None:
    """Three crowns in the first window of 96 px, two in the last; two training windows and more are one of 160 px."""
    hw = (96, 160)
    discs = [Disc(15, 15, 6), Disc(15, 50, 6), Disc(15, 80, 6), Disc(140, 20, 6), Disc(140, 60, 6)]
    if tile_size == 160:
        discs = discs[:1]
    plan = plan_of([write_coordinates(tmp_path / "a.tif", hw)], tmp_path / "a.gpkg", tile_size=tile_size, overlap=32)
    watcher = Listening()
    run(dataclasses.replace(plan, max_detections=cap), InProcess(Perfect(discs, hw)), watcher)
    said = [line for line in watcher.said if "crowns may be missing" in line]
    assert len(said) == times
