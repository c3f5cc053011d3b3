"""`cabruca evaluate --tune-thresholds` with a network that says what the test wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from drawn_farm import farm_config, write_farm

from cabruca import operating_point
from cabruca.cli.main import main
from cabruca.config.schema import Config
from cabruca.data.dataset import input_spec
from cabruca.errors import CheckpointError, DataError
from cabruca.evaluation import evaluate
from cabruca.model.build import build_model
from cabruca.model.segmenter import Output, Segmenter
from cabruca.structures import Batch, CroppedMasks, Prediction
from cabruca.thresholding import suppressed, tune_thresholds
from cabruca.train import checkpoint

Made = tuple[Path, Path, Config]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A checkpoint, the farm it is for, and its configuration."""
    farm = write_farm(tmp_path / "farm")
    config = farm_config(farm, tmp_path, {"data.overlap": 32})  # no crown is wider
    spec = input_spec(config)
    state = {"model": dict(build_model(config, spec, weights=False).state_dict()), "config": config.to_dict()}
    path = tmp_path / "kept" / "checkpoint_best.pth"
    checkpoint.write(path, {**state, "task": {"input": spec.to_dict()}, "epoch": 1, "step": 1}, metric=None)
    return path, farm, config


def says(
    monkeypatch: pytest.MonkeyPatch, of: Callable[[torch.Tensor, torch.Tensor], list[tuple[torch.Tensor, ...]]]
) -> None:
    """The network answers with what `of` makes of the window's true boxes and labels, and does its own NMS."""

    def forward(self: Segmenter, batch: Batch, *, losses: bool = True, predictions: bool = False) -> Output:
        out = []
        for b in range(len(batch)):
            parts = of(batch.crowns[b].boxes_xyxy_px, batch.crowns[b].labels)
            boxes, labels, scores = (torch.cat([p[k] for p in parts]) for k in range(3))
            raw = Prediction(boxes, scores, labels, CroppedMasks.from_crops([None] * len(labels)), None, None, None)
            out.append(suppressed(raw, self.nms_iou, self.max_detections))
        terms = None
        if losses:
            from cabruca.model.segmenter import Terms

            terms = Terms({}, {}, {})
        return Output(terms, out)

    monkeypatch.setattr(Segmenter, "forward", forward)


def at(boxes: torch.Tensor, labels: torch.Tensor, score: float) -> tuple[torch.Tensor, ...]:
    return boxes, labels, torch.full((len(labels),), score)


def doubled(boxes: torch.Tensor, labels: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Each crown at 0.35, again a tenth of its side beside it at 0.3, and a false one in the corner at 0.2."""
    beside = boxes + 0.1 * (boxes[:, 2:3] - boxes[:, :1])
    corner = (torch.tensor([[0.0, 0.0, 5.0, 5.0]]), torch.tensor([1]))
    return [at(boxes, labels, 0.35), at(beside, labels, 0.3), at(*corner, 0.2)]


def test_the_point_is_what_makes_all_crowns_right(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    path, farm, _ = made
    says(monkeypatch, doubled)
    before = path.read_bytes()
    point = tune_thresholds(path, farm / "images", farm / "farm.json")
    assert operating_point.read(path) == point
    assert path.read_bytes() == before
    assert point.found_on == str(farm / "farm.json")
    assert set(point.score) == {"cacao_tree", "shade_tree"}
    for name, measured in point.measured.items():
        assert 0.2 < point.score[name] <= 0.35
        assert measured["count"] == measured["count_true"]
    assert point.nms_iou == 0.5  # as it was trained: it takes the doubles away already
    assert (point.merge_iou, point.merge_containment) == (None, None)  # though pictures of 128 px have windows of 64
    numbers = evaluate(path, farm / "images", farm / "farm.json", score_threshold="auto")
    assert numbers["total_count"] == numbers["total_count_true"] == 18
    assert evaluate(path, farm / "images", farm / "farm.json")["total_count"] == 0  # 0.5, as trained


def test_an_nms_that_fits_better_is_taken(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubles of IoU 0.45 at the same score: 0.5 leaves them, 0.4 does not."""
    path, farm, _ = made
    share = 0.3793  # of the side, along x: (1 - s) / (1 + s) = 0.45

    def half_beside(boxes: torch.Tensor, labels: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        side = (boxes[:, 2:3] - boxes[:, :1]) * torch.tensor([[share, 0.0, share, 0.0]])
        return [at(boxes, labels, 0.9), at(boxes + side, labels, 0.9)]

    says(monkeypatch, half_beside)
    assert tune_thresholds(path, farm / "images", farm / "farm.json").nms_iou == 0.4


def test_labels_without_crowns_tune_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    path, farm, _ = made
    empty = json.loads((farm / "farm.json").read_text())
    (farm / "empty.json").write_text(json.dumps({**empty, "annotations": []}))
    says(monkeypatch, doubled)
    with pytest.raises(DataError, match="holds no crown"):
        tune_thresholds(path, farm / "images", farm / "empty.json")
    assert operating_point.read(path) is None


def test_auto_without_a_point_says_how_to_get_one(made: Made) -> None:
    path, farm, _ = made
    with pytest.raises(CheckpointError, match="tune-thresholds"):
        evaluate(path, farm / "images", farm / "farm.json", score_threshold="auto")


def test_the_command(made: Made, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path, farm, _ = made
    says(monkeypatch, doubled)
    where = ["--checkpoint", str(path), "--images", str(farm / "images"), "--annotations", str(farm / "farm.json")]
    with pytest.raises(SystemExit) as done:
        main(["evaluate", *where, "--tune-thresholds"])
    out = capsys.readouterr().out
    assert done.value.code == 0
    assert "cacao_tree: count from a score of 0." in out
    assert "total_count_accuracy" in out
    for wrong in (["--tune-thresholds", "--workers", "2"], ["--score", "1.5"], ["--tune-thresholds", "--score", "0.3"]):
        with pytest.raises(SystemExit) as done:
            main(["evaluate", *where, *wrong])
        assert done.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
