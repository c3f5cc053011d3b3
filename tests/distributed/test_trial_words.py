"""What a trial and its study say to each other at the beginning and at the end."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import ray

from cabruca.config.load import config_from_dict
from cabruca.distributed import trial_lines
from cabruca.distributed.study_desk import Order, StudyDesk
from cabruca.distributed.trial_ending import Ending, last_words
from cabruca.distributed.trial_lines import order_at
from cabruca.errors import RunError

ORDER = Order(3, config_from_dict({}), known=2, elapsed_s=5.0)


class SlowDesk:
    """A desk at which the driver's message comes after so many looks of the trial."""

    def __init__(self, looks: int) -> None:
        self.desk, self.looks = StudyDesk(), looks
        self.order = self

    def remote(self, number: int) -> Order | None:
        self.looks -= 1
        if self.looks == 0:
            self.desk.hand_out(ORDER)
        return self.desk.order(number)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda answer: answer)


def test_a_trial_that_is_quicker_than_the_drivers_message_waits_for_it() -> None:
    desk = SlowDesk(looks=3)
    order = order_at(desk, 3)
    assert (order.number, order.known, order.elapsed_s) == (3, 2, 5.0)
    assert desk.looks == 0


def test_an_order_that_never_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 7.0)
    monkeypatch.setattr(trial_lines.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(trial_lines.time, "sleep", lambda seconds: None)
    with pytest.raises(RunError, match=r"trial 3 was begun and its order did not come in 60 s; resume the study"):
        order_at(SlowDesk(looks=1000), 3)


def test_the_last_words_of_a_trial_end_it_for_ray_tune_too() -> None:
    """Without `done` Ray Tune asks for one report more: a third of what a short trial costs the driver."""
    from ray.tune.experiment import Trial

    words: dict[str, Any] = last_words(3, Ending("stopped", 2, "stopped by asha at rung 1 after epoch 2"))
    assert Trial("cabruca", stub=True).should_stop(words)
    assert Ending.from_json(words["end"]) == Ending("stopped", 2, "stopped by asha at rung 1 after epoch 2")
