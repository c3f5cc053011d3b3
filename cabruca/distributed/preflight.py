"""Does what is asked for fit what is there? Looked at before anything starts, so that nothing waits in silence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cabruca.errors import ConfigError

Resources = Mapping[str, float]


@dataclass(frozen=True)
class Asked:
    """Workers of a run: `least` to `most` of them, `each` with these resources, placed as `strategy` says."""

    least: int
    most: int
    each: Resources
    strategy: str = "PACK"


def workers_that_fit(each: Resources, nodes: Sequence[Resources], *, one_a_node: bool = False) -> list[int]:
    """Workers with resources `each` that fit on each node's free resources."""
    fits = [_fit(each, node) for node in nodes]
    return [min(1, n) for n in fits] if one_a_node else fits


def _fit(each: Resources, node: Resources) -> int:
    # 1e-9: free resources are sums of fractions
    return min((math.floor(node.get(name, 0.0) / need + 1e-9) for name, need in each.items()), default=0)


def _workers_of_a_team(asked: Asked, nodes: Sequence[Resources]) -> int:
    """The most workers that may belong to one team, as its strategy wants them placed."""
    each = workers_that_fit(asked.each, nodes, one_a_node=asked.strategy == "STRICT_SPREAD")
    return max(each, default=0) if asked.strategy == "STRICT_PACK" else sum(each)


def fits(asked: Asked, nodes: Sequence[Resources]) -> bool:
    """Whether the least number of workers fits the free resources of every node."""
    return _workers_of_a_team(asked, nodes) >= asked.least


def teams_that_fit(asked: Asked, nodes: Sequence[Resources]) -> int:
    """How many teams of the least number of workers fit beside one another."""
    each = workers_that_fit(asked.each, nodes)
    if asked.strategy == "STRICT_PACK":
        return sum(n // asked.least for n in each)
    if asked.strategy != "STRICT_SPREAD":
        return sum(each) // asked.least
    teams = 0  # a node takes one worker of each
    while sum(min(n, teams + 1) for n in each) >= (teams + 1) * asked.least:
        teams += 1
    return teams


def check_fit(asked: Asked, nodes: Sequence[Resources]) -> None:
    """Compare with the free resources of every node that is there; one that an autoscaler might add is not.

    Raises:
        ConfigError: fewer than the least number of workers fit; says how many do.
    """
    there = _workers_of_a_team(asked, nodes)
    if there >= asked.least:
        return
    remedy = f"use --workers {there} or add nodes" if there else "ask for less in distributed.resources_per_worker"
    if asked.strategy.startswith("STRICT"):
        remedy += f", or another distributed.placement_strategy than {asked.strategy}"
    raise ConfigError(f"{asked.least} workers x {_told(asked.each)} asked, {_free(asked.each, nodes)}: {remedy}")


def _told(each: Resources) -> str:
    return " + ".join(f"{need:g} {name}" for name, need in each.items())


def _free(each: Resources, nodes: Sequence[Resources]) -> str:
    kinds = [f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in each]
    where = f" on {len(nodes)} nodes" if len(nodes) != 1 else ""
    return f"{', '.join(kinds)} free{where}"
