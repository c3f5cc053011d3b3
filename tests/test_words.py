"""One of a thing is not said to be several."""

from __future__ import annotations

import dataclasses

from run_helpers import line_config

from cabruca.train.batching import BatchPlan
from cabruca.train.ending import ending
from cabruca.train.state import Place
from cabruca.words import counted


def test_one_is_one() -> None:
    assert [counted(n, "plot") for n in (0, 1, 2)] == ["0 plots", "1 plot", "2 plots"]


def test_the_shortest_run_is_told_in_words_that_fit(tmp_path: object) -> None:
    settings = line_config(str(tmp_path), training__num_epochs=1).training
    place = dataclasses.replace(Place.from_state({}), epoch=1, step=1)
    assert ending(place, settings, {}, None).message == "finished 1 epoch, 1 step"
    assert BatchPlan(1, 1, 1, 1).describe() == (
        "1 picture an epoch / (batch_size 1 x accumulation 1 = 1) = 1 optimizer step; 1 picture a forward pass on "
        "each of 1 worker"
    )
