"""Found and true crowns of every plot, paired once for all who need the pairs."""

from __future__ import annotations

from collections.abc import Sequence

from cabruca.metrics.matching import Matches, match_crowns
from cabruca.metrics.plots import Plot

Matched = tuple[Plot, Matches]
"""A plot and the pairs of its found and true crowns."""


def match_plots(plots: Sequence[Plot]) -> list[Matched]:
    """Each plot with its `match_crowns`."""
    return [(plot, match_crowns(plot.found, plot.true)) for plot in plots]
