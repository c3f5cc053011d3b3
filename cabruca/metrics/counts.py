"""How many trees: counts over the whole validation area."""

from __future__ import annotations

from collections.abc import Sequence

from cabruca.metrics.records import PictureRecord


def count_accuracy(found: int, true: int) -> float:
    """max(0, 1 - |found - true| / max(true, 1)): 1 is exact, 0 is off by the truth or more; defined without trees."""
    return max(0.0, 1.0 - abs(found - true) / max(true, 1))


def count_metrics(
    records: Sequence[PictureRecord], names: Sequence[str], *, score_threshold: float
) -> dict[str, float]:
    """`cacao_count`, `cacao_count_true`, `cacao_count_accuracy`, the same for each class and for `total`.

    Found crowns count from `score_threshold` on. Numbers are summed over the whole validation area before they are
    compared, so pictures without trees are no special case.

    Args:
        names: instance classes; names[0] is label 1; "cacao_tree" is reported as "cacao".
    """
    out: dict[str, float] = {}
    found_total = true_total = 0
    for label, name in enumerate(names, 1):
        short = name.removesuffix("_tree")
        true = sum(int((r.truth.counted & (r.truth.labels == label)).sum()) for r in records)
        found = sum(
            int((r.found.counted & (r.found.labels == label) & (r.found.scores >= score_threshold)).sum())
            for r in records
        )
        out |= {f"{short}_count": float(found), f"{short}_count_true": float(true)}
        out[f"{short}_count_accuracy"] = count_accuracy(found, true)
        found_total, true_total = found_total + found, true_total + true
    out |= {"total_count": float(found_total), "total_count_true": float(true_total)}
    out["total_count_accuracy"] = count_accuracy(found_total, true_total)
    return out
