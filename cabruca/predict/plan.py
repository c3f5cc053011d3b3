"""What is asked for and what the checkpoint knows become one plan: every number of a prediction, decided once."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cabruca import operating_point
from cabruca.config.schema import Config
from cabruca.data.drivers import gdal_version
from cabruca.errors import ConfigError
from cabruca.facts import TrainingFacts
from cabruca.predict.found import Look
from cabruca.predict.picture import Picture
from cabruca.predict.rows import SIMPLIFY_PX
from cabruca.predict.stitch import MERGE_CONTAINMENT, MERGE_IOU
from cabruca.predict.windows import STRIDE_PX
from cabruca.structures import InputSpec
from cabruca.train.sidecar import sha256_of

ROOM = 1.25
"""The default overlap is this many times the 95th percentile crown diameter."""


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Attributes:
        images: rasters, in order. out: the map. score: `auto`, or one threshold for all classes.
        gsd: `match` resamples to the training scale. tile_size, overlap: px of the grid; None: the checkpoint's.
        aoi: vector file. raster_out: folder for the dense outputs. batch_size: windows in a pass; None: as trained.
        simplify_px: tolerance of the crown polygons, 0: along the pixels' edges.
    """

    images: Sequence[str]
    out: Path
    score: float | Literal["auto"] = "auto"
    gsd: Literal["match", "native"] = "match"
    tile_size: int | None = None
    overlap: int | None = None
    aoi: Path | None = None
    raster_out: Path | None = None
    batch_size: int | None = None
    simplify_px: float = SIMPLIFY_PX


@dataclass(frozen=True)
class Plan:
    """Everything decided that does not depend on the raster.

    Attributes:
        spec, facts: of the checkpoint. score: class -> threshold. checkpoint: its path, sha256: of its file.
        max_detections: crowns that the network gives of a training window at most; None: any number.
        notes: what a person should know, a line each.
    """

    request: Request
    spec: InputSpec
    facts: TrainingFacts
    score: Mapping[str, float]
    batch_size: int
    tile_size: int
    merge_iou: float = MERGE_IOU
    merge_containment: float = MERGE_CONTAINMENT
    nms_iou: float | None = None
    default_overlap: int = 64
    max_detections: int | None = None
    checkpoint: str = ""
    sha256: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def training_gsd_m(self) -> float | None:
        """Metres a pixel that the network was trained at."""
        return self.spec.gsd_m or self.facts.gsd_m

    def crown_px(self, picture: Picture) -> float | None:
        """The 95th percentile crown diameter, grid px of `picture`; None: the checkpoint does not know."""
        metres, px = self.facts.crown_diameter_p95_m, self.facts.crown_diameter_p95_px
        return metres / picture.gsd_m if metres is not None and picture.gsd_m is not None else px

    def overlap(self, picture: Picture) -> int:
        """As asked for; else 1.25 times the 95th percentile crown, at most half a window."""
        if self.request.overlap is not None:
            return self.request.overlap
        crown = self.crown_px(picture)
        wanted = self.default_overlap if crown is None else math.ceil(ROOM * crown)
        return min(wanted, self.tile_size // 2)

    def seam_note(self, picture: Picture) -> str:
        """What the overlap costs, empty where it costs nothing."""
        crown, overlap = self.crown_px(picture), self.overlap(picture)
        if crown is None or overlap >= crown:
            return ""
        side = max(self.tile_size, STRIDE_PX * math.ceil(2 * ROOM * crown / STRIDE_PX))
        return (
            f"'{picture.name}': overlap {overlap} px is smaller than large crowns are ({crown:.0f} px, the 95th "
            f"percentile of training), so crowns on a seam may be cut or counted twice; use --overlap "
            f"{math.ceil(ROOM * crown)}" + (f" with --tile-size {side}" if side > self.tile_size else "")
        )

    def full(self, look: Look) -> bool:
        """Whether a window has as many crowns as the network gives of one, so that others may be missing."""
        hw = look.window.rect[3], look.window.rect[2]
        return self.max_detections is not None and len(look.crowns) >= math.ceil(
            self.max_detections * self.spec.room(hw)
        )

    def settings(self) -> dict[str, str]:
        """What a map of these images by this checkpoint depends on, name -> text; the finished map holds them.

        Not the batch size: a window's numbers depend on it in the last bits alone, and whoever ran out of memory goes
        on with a smaller one.
        """
        request = self.request
        aoi = "" if request.aoi is None else hashlib.sha256(request.aoi.read_bytes()).hexdigest()
        return _texts({
            "gsd": request.gsd, "tile_size": self.tile_size, "overlap": request.overlap, "aoi": aoi, "score": dict(self.score), "merge_iou": self.merge_iou,
            "merge_containment": self.merge_containment, "nms_iou": self.nms_iou, "simplify_px": request.simplify_px,
            "raster_out": request.raster_out is not None,
        })  # fmt: skip

    def job(self) -> dict[str, str]:
        """Everything that the result depends on, name -> text."""
        images = map(Path, self.request.images)
        stats = [(str(i.absolute()), i.stat().st_size, i.stat().st_mtime_ns) for i in images]
        return self.settings() | _texts({
            "images": stats, "checkpoint": self.sha256, "input": self.spec.to_dict(), "facts": asdict(self.facts),
            "gdal": gdal_version(),
        })  # fmt: skip


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in values.items()}


def make_plan(
    request: Request, config: Config, spec: InputSpec, facts: TrainingFacts | None, *, checkpoint: Path
) -> Plan:
    """Decide.

    Raises:
        ConfigError: the tile size is not positive, or the thresholds are no shares.
        CheckpointError: the checkpoint has no instance head to find crowns with.
    """
    notes = [] if facts is not None else [
        f"checkpoint {checkpoint.name} does not know its training scale and crown sizes (it is of an earlier release): "
        "rasters are read as they are, and the overlap is a guess; train again to have both"
    ]  # fmt: skip
    point = operating_point.read(checkpoint)
    score, said = _scores(request, config, spec, point)
    tile_size = spec.tile_size if request.tile_size is None else request.tile_size
    if tile_size < 2 * STRIDE_PX:
        raise ConfigError(f"--tile-size {tile_size} is smaller than {2 * STRIDE_PX} px; the network needs that much")
    return Plan(
        request=request,
        spec=spec,
        facts=facts or TrainingFacts(),
        score=score,
        batch_size=request.batch_size or config.data.batch_size,
        tile_size=tile_size,
        merge_iou=_or(None if point is None else point.merge_iou, MERGE_IOU),
        merge_containment=_or(None if point is None else point.merge_containment, MERGE_CONTAINMENT),
        nms_iou=None if point is None else point.nms_iou,
        default_overlap=config.data.overlap,
        max_detections=config.validation.max_detections,
        checkpoint=str(checkpoint),
        sha256=sha256_of(checkpoint),
        notes=[*notes, *said],
    )


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _scores(
    request: Request, config: Config, spec: InputSpec, point: operating_point.OperatingPoint | None
) -> tuple[dict[str, float], list[str]]:
    names = spec.instance_classes
    if request.score != "auto":
        return dict.fromkeys(names, float(request.score)), []
    trained = config.validation.score_threshold
    if point is None:
        return dict.fromkeys(names, trained), [
            f"the checkpoint has no operating point; crowns from score {trained:g} on are taken "
            "(validation.score_threshold); `cabruca evaluate --tune-thresholds` finds a better one"
        ]
    score = {name: float(point.score.get(name, trained)) for name in names}
    told = ", ".join(f"{name} {value:.3g}" for name, value in score.items())
    return score, [f"scores of the checkpoint's operating point (best {point.chosen_by}): {told}"]


def describe(values: Mapping[str, Any]) -> str:
    """Thresholds as JSON text."""
    return json.dumps(dict(values))
