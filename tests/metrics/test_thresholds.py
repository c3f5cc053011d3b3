"""Which score crowns are counted from: drawn crowns whose best score is known, and every score tried by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import SPEC, Disc, drawn_sample, perfect

from cabruca.config.schema import ValidationConfig
from cabruca.metrics.counts import count_metrics
from cabruca.metrics.evaluator import Evaluator
from cabruca.metrics.records import PictureRecord
from cabruca.metrics.thresholds import Sweep, choose_scores
from cabruca.runtime import Runtime
from cabruca.structures import Prediction, Regions, Sample, collate

NAMES = SPEC.instance_classes
ROW: list[Disc] = [(14.0 + 24 * i, 40.0, 10.0, 1) for i in range(5)]
"""Five cacao trees that do not touch."""


def records_of(pairs: Sequence[tuple[Sample, Prediction]]) -> list[PictureRecord]:
    e = Evaluator(NAMES, SPEC.semantic_classes, ValidationConfig(), min_visible_share=0.3)
    for sample, found in pairs:
        e.add(collate([sample]), [found])
    e.compute(Runtime.single())
    return e.gathered


def seen(truth: Sequence[Disc], found: Sequence[tuple[Disc, float]], index: int = 0) -> tuple[Sample, Prediction]:
    """A picture, and crowns found in it with their scores."""
    found = sorted(found, key=lambda f: -f[1])
    other = perfect(drawn_sample([disc for disc, _ in found], index=index))
    return drawn_sample(truth, index=index), replace(other, scores=torch.tensor([s for _, s in found]))


def shifted(disc: Disc) -> Disc:
    return disc[0], disc[1] + 60.0, disc[2], disc[3]


def test_the_score_lies_between_the_last_right_crown_and_the_first_wrong_one() -> None:
    right = [(disc, 0.4) for disc in ROW]
    wrong = [(shifted(disc), 0.2) for disc in ROW[:3]]
    for chosen_by in ("count", "f1"):
        choice = choose_scores(records_of([seen(ROW, right + wrong)]), NAMES, chosen_by=chosen_by)["cacao_tree"]
        assert choice.score == pytest.approx(0.3)
        assert (choice.f1, choice.count, choice.count_true, choice.count_accuracy) == (1.0, 5.0, 5.0, 1.0)


def test_count_and_f1_part_where_wrong_crowns_stand_before_right_ones() -> None:
    # 0.9 x 3 right, 0.5 x 2 wrong, 0.3 x 2 right: five crowns are found from 0.5 on, the best F1 is from 0.3 on
    found = [(d, 0.9) for d in ROW[:3]] + [(shifted(d), 0.5) for d in ROW[:2]] + [(d, 0.3) for d in ROW[3:]]
    records = records_of([seen(ROW, found)])
    by_count, by_f1 = (choose_scores(records, NAMES, chosen_by=c)["cacao_tree"] for c in ("count", "f1"))
    assert by_count.score == pytest.approx(0.4)
    assert (by_count.count, by_count.precision, by_count.recall) == (5.0, 0.6, 0.6)
    assert by_f1.score == pytest.approx(0.3)
    assert by_f1.f1 == pytest.approx(10 / 12)
    assert by_f1.count_accuracy == pytest.approx(0.6)


def test_a_class_without_truth_or_without_finds_has_no_score() -> None:
    records = records_of([seen(ROW, [((60.0, 90.0, 12.0, 2), 0.9)])])
    assert choose_scores(records, NAMES) == {}
    assert choose_scores([], NAMES) == {}


def test_a_second_crown_on_one_tree_is_wrong() -> None:
    twice = [(ROW[0], 0.9), ((ROW[0][0] + 1, *ROW[0][1:]), 0.8)]
    sweep = Sweep.of(records_of([seen(ROW, twice)]), 1)
    assert sweep.right.tolist() == [True, False]
    assert sweep.wrong.tolist() == [False, True]


def test_a_crown_in_an_ignored_region_is_neither() -> None:
    sample, found = seen(ROW, [(ROW[0], 0.9), (shifted(ROW[1]), 0.8)])
    region = Regions(torch.tensor([[0.0, 80.0, 128.0, 128.0]]), torch.tensor([0]), Regions.empty().masks)
    region = replace(region, masks=type(region.masks).from_crops([None]))
    sample = replace(sample, crowns=replace(sample.crowns, ignored=region))
    sweep = Sweep.of(records_of([(sample, found)]), 1)
    assert (sweep.right.tolist(), sweep.wrong.tolist()) == ([True, False], [False, False])
    assert sweep.counted.tolist() == [True, False]


@pytest.mark.parametrize("seed", range(6))
def test_a_sweep_is_every_score_tried(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(3):
        truth = [(*rng.uniform(15, 113, 2), rng.uniform(8, 14), int(rng.integers(1, 3))) for _ in range(8)]
        near = [(x + rng.normal(0, 3), y + rng.normal(0, 3), r, label) for x, y, r, label in truth]
        far = [(*rng.uniform(15, 113, 2), rng.uniform(8, 14), int(rng.integers(1, 3))) for _ in range(6)]
        pairs.append(seen(truth, [(d, float(rng.integers(1, 20)) / 20) for d in near + far], index))
    records = records_of(pairs)
    for label, name in enumerate(NAMES, 1):
        sweep = Sweep.of(records, label)
        short = name.removesuffix("_tree")
        tried = {}
        for score in np.unique(sweep.scores):
            counts = count_metrics(records, NAMES, score_threshold=float(score))
            choice = sweep.at(float(score))
            assert choice.count == counts[f"{short}_count"]
            assert choice.count_accuracy == pytest.approx(counts[f"{short}_count_accuracy"])
            tried[float(score)] = choice
        off = {s: abs(c.count - c.count_true) for s, c in tried.items()}
        by_count, by_f1 = sweep.best("count"), sweep.best("f1")
        assert by_count is not None
        assert by_f1 is not None
        assert abs(by_count.count - by_count.count_true) == min(off.values())
        assert by_f1.f1 == max(c.f1 for c in tried.values())


def test_a_score_a_class_counts_and_surveys_each_by_its_own() -> None:
    truth: list[Disc] = [*ROW, (60.0, 90.0, 12.0, 2)]
    sample, found = seen(truth, [(d, 0.3) for d in truth])
    counts = {}
    for name, scores in {"none": None, "cacao": {"cacao_tree": 0.2}, "shade": {"shade_tree": 0.2}}.items():
        settings = ValidationConfig(score_threshold=0.5)
        e = Evaluator(NAMES, SPEC.semantic_classes, settings, min_visible_share=0.3, scores=scores)
        e.add(collate([sample]), [found])
        metrics = e.compute(Runtime.single())
        stems = metrics["stem_density_per_ha"] * metrics["plot_area_ha"]
        counts[name] = (metrics["cacao_count"], metrics["shade_count"], round(stems))
    assert counts == {"none": (0, 0, 0), "cacao": (5, 0, 5), "shade": (0, 1, 1)}
