"""MODEL_CARD.md: what it says, and that it never says what it does not know."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from run_helpers import LineTask, line_config

from cabruca.config.schema import Config
from cabruca.run import run_training
from cabruca.tracking.card_data import set_facts
from cabruca.tracking.carding import write_card
from cabruca.tracking.run_dir import RunDir

COCO = {
    "licenses": [{"id": 1, "name": "CC-BY-4.0"}],
    "images": [{"id": 1, "gsd_m": 0.05, "site": "Una"}, {"id": 2, "gsd_m": 0.1, "site": "Itabuna"}, {"id": 3}],
    "categories": [{"id": 1, "name": "cacao_tree"}, {"id": 2, "name": "palm"}, {"id": 3, "name": "hut"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1]]},
        {"image_id": 1, "category_id": 1, "segmentation": []},
        {"image_id": 2, "category_id": 2, "segmentation": [[0, 0, 1, 1]], "attributes": {"bbox_only": True}},
        {"image_id": 2, "category_id": 1, "segmentation": [[0]], "iscrowd": 1},
        {"image_id": 2, "category_id": 3, "segmentation": [[0]]},
    ],
}
MAP = {"palm": "shade_tree", "hut": "ignore"}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "coco.json").write_text(json.dumps(COCO))
    data = {
        "batch_size": 4,
        "num_workers": 0,
        "train_annotations": str(tmp_path / "coco.json"),
        "val_annotations": str(tmp_path / "none.json"),
        "category_map": MAP,
    }
    return line_config(tmp_path, experiment_name="a", data=data)


def split(text: str) -> tuple[dict[str, Any], str]:
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_data_is_counted_under_the_classes_it_is_learnt_as(tmp_path: Path, config: Config) -> None:
    found = set_facts("training", config.data.train_annotations, MAP)
    assert found.images == 3
    assert (found.crowns, found.masks) == ({"cacao_tree": 2, "shade_tree": 1}, {"cacao_tree": 1, "shade_tree": 0})
    assert found.sites == ("Itabuna", "Una")
    assert found.gsd_m == (0.05, 0.1)
    assert found.licences == ("CC-BY-4.0",)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"images": 3}', '{"images": [], "annotations": [{}]}'])
def test_a_strange_annotation_file_is_said_and_not_counted(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    found = set_facts("training", str(tmp_path / "x.json"), {})
    assert found.images is None
    assert found.why.startswith("not counted")


def test_the_card_of_a_run(tmp_path: Path, config: Config) -> None:
    result = run_training(config, task_factory=LineTask, quiet=True)
    run = RunDir(tmp_path / "a")
    head, body = split(run.model_card.read_text(encoding="utf-8"))
    (results,) = head["model-index"][0]["results"]
    values = {m["type"]: m["value"] for m in results["metrics"]}
    assert values["mAP_50"] == pytest.approx(result.best)
    assert f"| mAP_50 | {result.best:.4g} |" in body
    assert hashlib.sha256(run.config_yaml.read_bytes()).hexdigest() in body
    assert json.loads(run.best.with_suffix(".json").read_text())["sha256"] in body
    assert f"after epoch {result.best_epoch}" in body
    for text in ("3 pictures, 3 annotations", "CC-BY-4.0", "0.05 to 0.1 m a pixel", "Itabuna, Una"):
        assert text in body, text
    assert "not counted: it cannot be read here" in body  # the validation file is not there
    assert "Labelled with boxes alone: shade_tree" in body
    assert "No held-out test was made" in body
    for part in ("Model details", "Intended use", "Factors", "Metrics", "Training and evaluation data",
                 "Ethical considerations", "Caveats and recommendations", "How to use it"):  # fmt: skip
        assert f"\n## {part}\n" in body, part


def test_a_run_that_has_begun_says_that_nothing_is_known_yet(tmp_path: Path, config: Config) -> None:
    run = RunDir(tmp_path / "begun")
    run.path.mkdir()
    write_card(run, config, {})
    head, body = split(run.model_card.read_text(encoding="utf-8"))
    assert "model-index" not in head
    assert "No checkpoint has been validated yet" in body
    assert "nan" not in body.lower().replace("finance", "")


@pytest.mark.parametrize(
    ("seen", "target", "said"),
    [
        (0.0312345, None, "0.0312 m a pixel, the median of the training pictures, as their georeference says"),
        (0.1, 0.1, "as the pictures' georeference says; resampled to 0.1 m"),
        (None, None, "known neither from the annotation files nor from the pictures"),
    ],
)
def test_the_resolution_comes_from_the_pictures_where_the_files_do_not_state_it(
    tmp_path: Path, config: Config, seen: float | None, target: float | None, said: str
) -> None:
    bare = {**COCO, "images": [{"id": 1}, {"id": 2}, {"id": 3}]}
    (tmp_path / "coco.json").write_text(json.dumps(bare))
    run = RunDir(tmp_path / "begun")
    run.path.mkdir()
    data = config.data.model_copy(update={"target_gsd_m": target})
    write_card(run, config.model_copy(update={"data": data}), {"data": {"gsd_m": seen}})
    _, body = split(run.model_card.read_text(encoding="utf-8"))
    assert f"- ground sampling distance: {said}\n" in body
    assert "pip install cabruca\n" not in body, "no index has it"


def test_a_test_that_is_still_to_come_is_not_denied(tmp_path: Path, config: Config) -> None:
    run = RunDir(tmp_path / "begun")
    run.path.mkdir()
    data = config.data.model_copy(update={"test_annotations": str(tmp_path / "test.json")})
    write_card(run, config.model_copy(update={"data": data}), {})
    _, body = split(run.model_card.read_text(encoding="utf-8"))
    assert "The held-out test has not been made yet. The numbers above chose the model." in body
    assert "names none" not in body


def test_test_numbers_and_the_operating_point_are_told(tmp_path: Path, config: Config) -> None:
    run_training(config, task_factory=LineTask, quiet=True)
    run = RunDir(tmp_path / "a")
    (run.path / "test").mkdir()
    (run.path / "test" / "metrics.json").write_text(json.dumps({"mAP_50": 0.123456}))
    sidecar = run.best.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "operating_point": {"score": {"cacao": 0.31}}}))
    task = {"input": {"bands": [1, 2, 3], "scale": 255.0, "gsd_m": 0.1, "tile_size": 512}}
    write_card(run, config, task)
    _, body = split(run.model_card.read_text(encoding="utf-8"))
    assert "| test (held out) |" in body
    assert "| 0.1235 |" in body
    assert "No held-out test" not in body
    assert "a score of 0.31 (cacao) on" in body
    assert "bands 1, 2, 3, divided by 255, 0.1 m a pixel, windows of 512 px" in body


def test_secrets_stay_out_of_the_card(tmp_path: Path, config: Config) -> None:
    data = config.data.model_copy(update={"val_annotations": "https://me:hunter2@host/val.json"})
    run = RunDir(tmp_path / "b")
    run.path.mkdir()
    write_card(run, config.model_copy(update={"data": data}), {})
    assert "hunter2" not in run.model_card.read_text(encoding="utf-8")
