"""report.html: whole, self-contained, escaped, and careful."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from drawn_study import METRIC, drawn_study
from PIL import Image

from cabruca.config.study import Study
from cabruca.study_report import write_report
from cabruca.study_report.cautions import cautions
from cabruca.study_report.parts import repeated, saved
from cabruca.tracking.study_dir import StudyDir
from cabruca.tracking.study_events import Journal, read
from cabruca.tracking.study_state import StudyState

Drawn = tuple[Study, StudyDir]


@pytest.fixture
def drawn(tmp_path: Path) -> Drawn:
    return drawn_study(tmp_path)


class Reader(HTMLParser):
    """Tags that are open, all text, all addresses; a tag that is closed in the wrong place is an error."""

    VOID = ("meta", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def report(study: Study, study_dir: StudyDir) -> Reader:
    path = write_report(study, study_dir, read(study_dir.results))
    assert path == study_dir.report
    reader = Reader(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


def test_the_page_needs_nothing_else_and_its_pictures_are_pictures(drawn: Drawn, tmp_path: Path) -> None:
    reader = report(*drawn)
    assert reader.addresses
    assert all(address.startswith("data:image/png;base64,") for address in reader.addresses)
    for address in reader.addresses:
        (tmp_path / "x.png").write_bytes(base64.b64decode(address.partition(",")[2]))
        with Image.open(tmp_path / "x.png") as picture:
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 3, "something is drawn"
    assert not {"script", "link", "iframe"} & set(reader.tags)


def test_it_has_every_section_of_a_study_with_failures_and_repeats(drawn: Drawn) -> None:
    _, study_dir = drawn
    rows = [{"trial": 2, "values": [0.68, 0.70, 0.66], "mean": 0.68, "deviation": 0.02}]
    study_dir.repeats_json.write_text(json.dumps({"trials": rows}))
    autopsy = {
        **{"exception": "TrainingDiverged: 20 steps", "memory_peak_mb": 2048.0, "trace": ["File x, line 3"]},
        **{"last_metrics": {METRIC: 0.22}, "difference_from_best": {"optimizer.lr": [0.0018, 0.0019]}},
    }
    folder = study_dir.trial_dir(4).path
    folder.mkdir(parents=True)
    (folder / "autopsy.json").write_text(json.dumps(autopsy))
    text = " ".join(report(*drawn).text)
    for title in (
        "Winner",
        "With caution",
        "Leaderboard",
        "Curves",
        "Parameters",
        "Repeated",
        "stopping early",
        "Failed",
    ):
        assert title in text
    assert f"Trial 2: {METRIC} 0.7123 after epoch 9" in text
    assert "22 of 36 epochs were run: asha spared 39% of them in 4 trials of at most 9 epochs." in text
    for told in ("TrainingDiverged: 20 steps", "2.00 GB", "File x, line 3", "0.68"):
        assert told in text
    assert "resnet50 tf_efficientnet_lite0" in text, "what the winner changed of the base configuration"


def test_what_trials_say_is_text_not_markup(tmp_path: Path) -> None:
    study, study_dir = drawn_study(tmp_path)
    journal = Journal(study_dir.results)
    journal.append({"event": "asked", "trial": 8, "params": {"data.train_dir": "<script>alert(1)</script>"}})
    reason = "Error: <img src=http://x/y.png onerror=alert(1)> & co"
    journal.append({"event": "ended", "trial": 8, "state": "failed", "epoch": 0, "values": None, "reason": reason})
    reader = report(study, study_dir)
    assert "script" not in reader.tags
    assert all(address.startswith("data:") for address in reader.addresses)
    assert reason in " ".join(reader.text)


def test_a_study_without_a_trial_has_a_page_too(tmp_path: Path) -> None:
    study, study_dir = drawn_study(tmp_path)
    study_dir.results.unlink()
    assert "No trial has a value yet" in " ".join(report(study, study_dir).text)


def test_several_metrics_have_a_front(tmp_path: Path) -> None:
    metrics = f"[{METRIC}, val/total_count_accuracy]"
    study, study_dir = drawn_study(tmp_path, metric=metrics, mode="[max, max]", scheduler="none")
    text = " ".join(report(study, study_dir).text)
    assert "Pareto front" in text
    assert "stopping early" not in text


def test_saved_counts_epochs_of_trials_that_ended_well(drawn: Drawn) -> None:
    found = saved(drawn[0], read(drawn[1].results))
    assert (found.trials, found.run, found.asked, found.rungs) == (4, 9 + 1 + 9 + 3, 36, {1: 1, 3: 1})


def test_what_patience_left_out_is_not_the_scheduler_s(drawn: Drawn) -> None:
    study, study_dir = drawn
    state = read(study_dir.results)
    finished = next(trial for trial in state.trials.values() if trial.state == "finished")
    finished.epoch = 4  # its patience ended it
    found = saved(study, state)
    assert (found.run, found.asked) == (4 + 1 + 9 + 3, 4 + 9 + 9 + 9)


def told(drawn: Drawn, repeats: list[dict[str, object]] | None = None, state: StudyState | None = None) -> str:
    study, study_dir = drawn
    if repeats is not None:
        study_dir.repeats_json.write_text(json.dumps({"trials": repeats}))
    state = state or read(study_dir.results)
    return "\n".join(cautions(study, state, repeated(study_dir, state, study)))


def test_a_winner_of_one_seed_is_called_luck_until_it_is_repeated(drawn: Drawn) -> None:
    assert "Winners of short runs are often luck" in told(drawn)
    rows = [
        {"trial": 2, "values": [0.60, 0.62], "mean": 0.61, "deviation": 0.014},
        {"trial": 0, "values": [0.61, 0.63], "mean": 0.62, "deviation": 0.014},
    ]
    text = told(drawn, rows)
    assert "often luck" not in text
    assert "Trial 2 had 0.7123 in the study and 0.61 +- 0.014 over 2 further seeds." in text
    assert "take trial 0" in text
    assert "differ by less than one deviation" in text


def test_a_winner_at_the_edge_of_its_range_asks_for_a_wider_one(drawn: Drawn) -> None:
    assert "optimizer.lr of the winner, 0.0019, stands at the upper end of its range" in told(drawn)
    state = read(drawn[1].results)
    state.trials[2].params["optimizer.lr"] = 5e-4
    assert "stands at" not in told(drawn, state=state)


def test_short_runs_few_trials_and_the_validation_set_are_named(drawn: Drawn) -> None:
    text = told(drawn)
    assert "Trials ran 9 of the configuration's 50 epochs." in text
    assert "4 trials for 2 parameters are few" in text
    assert re.search(r"--trials \+16\.", text)
    assert "no trial has seen" in text
