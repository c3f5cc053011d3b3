"""Points that a study tries because somebody said so: `points_to_evaluate`, and those of a grid.

Which one is next follows from what the journal holds, so points that are added, or a grid that is widened, are walked
to their end: each once.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from cabruca.config.parameter import same
from cabruca.config.study import Study

Params = Mapping[str, Any]


def next_point(study: Study, tried: Sequence[Params]) -> dict[str, Any] | None:
    """The first of `points_to_evaluate` that no trial has tried; each trial counts for one point."""
    left = list(tried)
    for raw in study.config.points_to_evaluate:
        point = study.space.point(raw)
        found = next((i for i, params in enumerate(left) if _holds(params, point)), None)
        if found is None:
            return point
        left.pop(found)
    return None


def next_of_grid(study: Study, tried: Sequence[Params]) -> dict[str, Any] | None:
    """The first point of the grid, shuffled by the study's seed, that no trial has tried; None: all are.

    Raises:
        ConfigError: a parameter is continuous or conditional.
    """
    grid = study.space.grid()
    points = [study.space.decode(dict(zip(grid, values, strict=True))) for values in itertools.product(*grid.values())]
    random.Random(study.config.sampler.seed).shuffle(points)
    known = {_name_of(params) for params in tried}
    return next((point for point in points if _name_of(point) not in known), None)


def _holds(params: Params, point: Params) -> bool:
    return all(key in params and same(params[key], value) for key, value in point.items())


def _name_of(params: Params) -> str:
    """Equal for equal parameters; 1 is 1.0, true is not."""
    plain = {k: float(v) if isinstance(v, int | float) and not isinstance(v, bool) else v for k, v in params.items()}
    return json.dumps(plain, sort_keys=True)
