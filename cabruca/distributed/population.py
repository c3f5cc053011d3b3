"""Population based training (Jaderberg et al. 2017), cooperatively: poor trials take over the weights of good ones.

Every `perturbation_interval` epochs a trial is compared with all that have come as far. One of the lowest
`quantile_fraction` takes the weights and the optimizer's moments of one of the highest, with its parameters perturbed:
numbers times 0.8 or 1.2 inside their range, choices a step aside, one in four drawn anew. Nobody is paused: the trial
asks the desk after its report, and goes on in its own folder at its own epoch.

Every draw is a function of (study seed, trial, epoch), so results replayed in their order give the same exchanges.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from cabruca.config.parameter import Parameter
from cabruca.config.study import Study
from cabruca.errors import CheckpointError, ConfigError
from cabruca.tracking.resume import SHAPE_KEYS
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_state import Result
from cabruca.train import checkpoint

FACTORS = (0.8, 1.2)
RESAMPLED = 0.25
"""Share of the parameters that are drawn anew when a trial takes over another's."""

FIXED = (*SHAPE_KEYS, "optimizer.type")
"""Keys under which weights and moments of one trial would not fit another."""


@dataclass(frozen=True)
class Exchange:
    """A trial takes over `donor`'s weights after `epoch`, and goes on with `params`."""

    epoch: int
    donor: int
    params: dict[str, Any]


def check_population(study: Study) -> None:
    """Whether weights fit from trial to trial, where they are to be taken over.

    Raises:
        ConfigError: the search space has a key under which they do not.
    """
    for key in study.space.keys:
        if study.config.scheduler.type == "pbt" and key in FIXED:
            raise ConfigError(
                f"scheduler pbt copies weights between trials, which {key} would not let fit; take it out of "
                "search_space, or use asha"
            )


class Population:
    """What the exchanges have made of the trials. Fed with every result, in order."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._scores: dict[int, dict[int, float]] = defaultdict(dict)
        self._newest: dict[int, Exchange] = {}

    def params_of(self, number: int, asked: dict[str, Any]) -> dict[str, Any]:
        """A trial's parameters now; `asked`: those it began with."""
        newest = self._newest.get(number)
        return asked if newest is None else newest.params

    def newest(self, number: int) -> Exchange | None:
        """The last exchange of a trial."""
        return self._newest.get(number)

    def decide(self, number: int, result: Result, asked: dict[int, dict[str, Any]]) -> Exchange | None:
        """Whether the trial takes over another's weights after this result; `asked`: what each trial began with."""
        settings, name = self._study.config.scheduler, self._study.metrics[0]
        if result.epoch % settings.perturbation_interval or name not in result.metrics:
            return None
        sign = 1.0 if self._study.directions[0] == "maximize" else -1.0
        scores = self._scores[result.epoch]
        scores[number] = sign * result.metrics[name]
        ranked = sorted(scores, key=lambda n: (scores[n], -n))
        share = min(math.ceil(len(ranked) * settings.quantile_fraction), len(ranked) // 2)
        if result.epoch >= self._study.max_epochs or number not in ranked[:share]:
            return None
        draw = random.Random(f"{self._study.config.sampler.seed}/{number}/{result.epoch}")
        donor = draw.choice(ranked[-share:])
        params = self._perturbed(self.params_of(donor, asked[donor]), draw)
        self._newest[number] = Exchange(result.epoch, donor, params)
        return self._newest[number]

    def _perturbed(self, params: dict[str, Any], draw: random.Random) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for parameter in self._study.space:
            if not self._study.space.exists(parameter, out):
                continue
            known = parameter.key in params and draw.random() >= RESAMPLED
            out[parameter.key] = perturbed(parameter, params[parameter.key], draw) if known else drawn(parameter, draw)
        return out


def perturbed(parameter: Parameter, value: Any, draw: random.Random) -> Any:
    """A value beside this one, inside the parameter's range."""
    if parameter.kind == "choice":
        here = next((i for i, choice in enumerate(parameter.choices) if choice == value), 0)
        there = min(max(here + draw.choice((-1, 1)), 0), len(parameter.choices) - 1)
        return parameter.choices[there]
    assert parameter.low is not None
    assert parameter.high is not None
    wanted = min(max(value * draw.choice(FACTORS), parameter.low), parameter.high)
    if parameter.continuous:
        return wanted
    step = parameter.step or 1
    return parameter.at(min(round((wanted - parameter.low) / step), parameter.steps))


def drawn(parameter: Parameter, draw: random.Random) -> Any:
    """Any value of the parameter."""
    if parameter.kind == "choice":
        return draw.choice(parameter.choices)
    assert parameter.low is not None
    assert parameter.high is not None
    if parameter.kind == "loguniform":
        return math.exp(draw.uniform(math.log(parameter.low), math.log(parameter.high)))
    if parameter.kind == "uniform":
        return draw.uniform(parameter.low, parameter.high)
    return parameter.at(draw.randint(0, parameter.steps))


def take_over(own: RunDir, donor: RunDir, config: dict[str, Any]) -> bool:
    """Put the donor's newest weights and moments into this run's newest checkpoint; place and history stay its own.

    Args:
        config: of the trial from here on, redacted.

    Returns:
        False where the donor has no checkpoint any more: the weights stay.
    """
    mine, theirs = checkpoint.newest_intact(own.checkpoints), checkpoint.newest_intact(donor.checkpoints)
    if mine is None:
        raise CheckpointError(f"{own.checkpoints} holds no intact checkpoint; the trial cannot take over weights")
    state = {**checkpoint.read(mine), "config": config}
    if theirs is not None:
        found = checkpoint.read(theirs)
        state |= {name: found[name] for name in ("model", "optimizer", "trained") if name in found}
    metric = (checkpoint.sidecar_of(mine) or {}).get("metric")
    checkpoint.write(own.latest, state, metric=metric)
    return theirs is not None
