"""How many trees: counts over the whole validation area."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cabruca.metrics.records import PictureRecord
from cabruca.metrics.survey import Least, sure


def count_accuracy(found: int, true: int) -> float:
    """max(0, 1 - |found - true| / max(true, 1)): 1 is exact, 0 is off by the truth or more; defined without trees."""
    return max(0.0, 1.0 - abs(found - true) / max(true, 1))


def least_scores(scores: Mapping[str, float], names: Sequence[str], *, otherwise: float) -> tuple[float, ...]:
    """Score to count from by label, of one a class; `otherwise` for a class that has none, and for label 0."""
    return otherwise, *(scores.get(name, otherwise) for name in names)


def count_metrics(
    records: Sequence[PictureRecord], names: Sequence[str], *, score_threshold: Least
) -> dict[str, float]:
    """`cacao_count`, `cacao_count_true`, `cacao_count_accuracy`, the same for each class and for `total`.

    Found crowns count from `score_threshold` on. Numbers are summed over the whole validation area before they are
    compared, so pictures without trees are no special case.

    Args:
        names: instance classes; names[0] is label 1; "cacao_tree" is reported as "cacao".
        score_threshold: one for all, or one by label.
    """
    out: dict[str, float] = {}
    found_total = true_total = 0
    for label, name in enumerate(names, 1):
        short = name.removesuffix("_tree")
        true = sum(int((r.truth.counted & (r.truth.labels == label)).sum()) for r in records)
        found = sum(
            int(
                (
                    r.found.counted & (r.found.labels == label) & sure(r.found.scores, r.found.labels, score_threshold)
                ).sum()
            )
            for r in records
        )
        out |= {f"{short}_count": float(found), f"{short}_count_true": float(true)}
        out[f"{short}_count_accuracy"] = count_accuracy(found, true)
        found_total, true_total = found_total + found, true_total + true
    out |= {"total_count": float(found_total), "total_count_true": float(true_total)}
    out["total_count_accuracy"] = count_accuracy(found_total, true_total)
    return out
