"""Collects pictures one by one, gathers them from all ranks, and computes every metric once, over all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from cabruca.config.schema import ValidationConfig
from cabruca.findings import Findings
from cabruca.ground import Inventory
from cabruca.metrics.agroforestry import AgroforestrySettings, agroforestry_metrics
from cabruca.metrics.counts import count_metrics, least_scores
from cabruca.metrics.detection import detect
from cabruca.metrics.found import findings_of
from cabruca.metrics.pairing import Matched, match_plots
from cabruca.metrics.plots import make_plots
from cabruca.metrics.records import PictureRecord, picture_records
from cabruca.metrics.segmentation import semantic_metrics
from cabruca.metrics.survey import Least, Survey, SurveySettings
from cabruca.runtime import Runtime
from cabruca.structures import Batch, Prediction


class Evaluator:
    """Metrics over a whole validation set.

    Args:
        instance_names: names of labels 1, 2, ...; semantic_names: names of classes 0, 1, ...
        config: score threshold, detection cap, and what the agroforestry metrics are made with.
        min_visible_share: a crown cut by a grid window's core takes part while this share of it lies inside.
        inventory: plane -> trees that people counted there; None: nothing to compare with.
        scores: class -> found crowns count from there; one that is not named from `score_threshold` on, as all do
            without any.
    """

    def __init__(
        self,
        instance_names: Sequence[str],
        semantic_names: Sequence[str],
        config: ValidationConfig,
        *,
        min_visible_share: float,
        inventory: Mapping[str, Inventory] | None = None,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        self.instance_names, self.semantic_names = tuple(instance_names), tuple(semantic_names)
        self.config = config
        self.min_visible_share = min_visible_share
        self.least: Least = config.score_threshold
        if scores is not None:
            self.least = least_scores(scores, self.instance_names, otherwise=config.score_threshold)
        self.inventory = inventory
        self.records: dict[str, PictureRecord] = {}
        self.gathered: list[PictureRecord] = []
        self._survey: SurveySettings | None = None
        if config.calculate_agroforestry_metrics:
            self._survey = SurveySettings.of(
                self.instance_names,
                self.semantic_names,
                score_threshold=self.least,
                shade_grid_m=config.shade_grid_m,
            )

    def add(self, batch: Batch, predictions: Sequence[Prediction]) -> None:
        """Keep what the metrics need of a batch; a picture seen twice counts once."""
        for record in picture_records(
            batch,
            predictions,
            num_semantic_classes=len(self.semantic_names),
            min_visible_share=self.min_visible_share,
            max_detections=self.config.max_detections,
            score_threshold=self.least,
            survey=self._survey,
        ):
            self.records[record.picture] = record

    def compute(
        self,
        runtime: Runtime,
        *,
        mask_labels: frozenset[int] = frozenset(),
        heads: Collection[str] = ("instance", "semantic"),
    ) -> dict[str, float]:
        """The metrics of `measure`."""
        return self.measure(runtime, mask_labels=mask_labels, heads=heads)[0]

    def measure(
        self,
        runtime: Runtime,
        *,
        mask_labels: frozenset[int] = frozenset(),
        heads: Collection[str] = ("instance", "semantic"),
    ) -> tuple[dict[str, float], Findings]:
        """Every metric, NaN where one is undefined, and what is drawn of it; the same on every rank.
        Afterwards `gathered` are the records of all ranks, by picture.

        Args:
            mask_labels: labels whose masks the network has learnt.
            heads: of the network; without `instance` nothing is known of crowns (NaN, while true counts stay), without
                `semantic` nothing of land cover.
        """
        everyone: dict[str, PictureRecord] = {}
        for part in runtime.gather(self.records):
            everyone.update(part)
        records = self.gathered = [everyone[k] for k in sorted(everyone)]
        matrices = [r.confusion for r in records if r.confusion is not None and "semantic" in heads]
        pixels = np.sum(matrices, axis=0) if matrices else None
        names, cap = self.instance_names, self.config.max_detections
        detected = detect(records, names, max_detections=cap, mask_labels=mask_labels)
        crowns = {**detected.metrics, **count_metrics(records, names, score_threshold=self.least)}
        if "instance" not in heads:
            crowns = {k: v if k.endswith("_count_true") else float("nan") for k, v in crowns.items()}
        land = semantic_metrics(pixels, self.semantic_names, canopy=names)
        surveys = [r.survey for r in records if r.survey is not None]
        matched = match_plots(make_plots(surveys)) if self._survey is not None else None
        found = Findings(names, self.semantic_names, self.least, pixels=pixels)
        if "instance" in heads:
            found = findings_of(
                records,
                names,
                self.semantic_names,
                score_threshold=self.least,
                curves=detected.curves,
                matched=matched,
                pixels=pixels,
            )
        return {**crowns, **land, **self._agroforestry(surveys, matched, heads)}, found

    def _agroforestry(
        self, surveys: Sequence[Survey], matched: Sequence[Matched] | None, heads: Collection[str]
    ) -> dict[str, float]:
        if matched is None:
            return {}
        settings = AgroforestrySettings(self.instance_names, self.config.shade_radius_m)
        return agroforestry_metrics(surveys, settings, inventory=self.inventory, heads=heads, matched=matched)
