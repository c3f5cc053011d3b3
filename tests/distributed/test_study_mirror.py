"""The copy of a study in a shared place: the journal before anything follows from it, the rest as it comes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from drawn_study import drawn_study
from ray_line import alone, many

from cabruca.distributed import study_mirror
from cabruca.distributed.mirror import Mirror
from cabruca.distributed.study_mirror import StudyMirror, look_into_storage, placed
from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.study_dir import StudyDir


def grow(study_dir: StudyDir) -> bytes:
    with study_dir.results.open("a") as file:
        file.write('{"event": "note", "time": 1.0, "text": "more"}\n')
    return study_dir.results.read_bytes()


def test_what_decides_is_there_at_once_and_results_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, study_dir = drawn_study(tmp_path)
    mirror = StudyMirror(str(tmp_path / "shared"), study_dir)
    copy = tmp_path / "shared" / "studies" / study_dir.name / "results.jsonl"
    for event in study_mirror.AT_ONCE:
        text = grow(study_dir)
        mirror.on_event({"event": event}, None)
        assert copy.read_bytes() == text, event
    before = copy.read_bytes()
    grow(study_dir)
    mirror.on_event({"event": "result"}, None)
    assert copy.read_bytes() == before, "not a copy for each result"
    monkeypatch.setattr(study_mirror, "EVERY_S", 0.0)
    mirror.on_event({"event": "asked"}, None)
    text = grow(study_dir)
    mirror.on_event({"event": "result"}, None)
    assert copy.read_bytes() == text


def test_a_study_is_fetched_where_it_is_ahead(tmp_path: Path) -> None:
    _, study_dir = drawn_study(tmp_path)
    place = str(tmp_path / "shared")
    mirror = StudyMirror(place, study_dir)
    mirror.begin()
    mirror.close()
    assert not mirror.is_ahead()
    elsewhere = StudyDir(tmp_path / "elsewhere" / study_dir.name)
    other = StudyMirror(place, elsewhere)
    assert other.is_ahead()
    other.fetch()
    assert elsewhere.holds_study
    assert elsewhere.results.read_bytes() == study_dir.results.read_bytes()
    assert not elsewhere.trials.exists(), "trials are fetched where they go on"
    assert not list(elsewhere.path.rglob(".*"))


def test_a_place_that_is_gone_at_the_end_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, study_dir = drawn_study(tmp_path)
    (tmp_path / "file").write_text("")
    mirror = StudyMirror(str(tmp_path / "file"), study_dir)
    with pytest.raises(RunError, match="cannot be written"):
        mirror.begin()
    mirror.close()
    assert "is whole" in caplog.text


def test_a_trial_s_copy_lies_in_its_study_s(tmp_path: Path) -> None:
    """Two studies that share a place both have a trial 0."""
    study_dir = StudyDir(tmp_path / "studies" / "light")
    config = many(tmp_path, distributed__storage_path="s3://bucket/runs?region=eu-west-1")
    found = placed(config, study_dir, study_dir.trials).distributed.storage_path
    assert found == "s3://bucket/runs/studies/light/trials?region=eu-west-1"
    own = many(tmp_path)
    assert placed(own, study_dir, study_dir.trials) == own


def test_what_the_driver_gathers_has_no_weights_and_is_not_gone_on_with(tmp_path: Path) -> None:
    alone(many(tmp_path / "there", training__num_epochs=1))
    mirror = Mirror(str(tmp_path / "shared"), "alone")
    mirror.push(RunDir(tmp_path / "there" / "alone"))
    here = RunDir(tmp_path / "here" / "alone")
    assert mirror.fetch(here, weights=False)
    assert here.metrics.is_file()
    assert not list(here.checkpoints.glob("*.pth"))
    assert not mirror.fetch(here, weights=False), "the same is not fetched again"
    assert mirror.fetch(here), "a trial that goes on here needs its weights"
    assert here.latest.is_file()


def test_weights_are_dropped_there_but_the_one_to_keep(tmp_path: Path) -> None:
    alone(many(tmp_path, training__num_epochs=1))
    mirror = Mirror(str(tmp_path / "shared"), "alone")
    mirror.push(RunDir(tmp_path / "alone"))
    mirror.drop_checkpoints(keep="checkpoint_best.pth")
    assert [path.name for path in (tmp_path / "shared").rglob("*.pth")] == ["checkpoint_best.pth"]
    assert len(list((tmp_path / "shared").rglob("checkpoint_*.json"))) >= 2


def test_a_name_that_is_taken_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, study_dir = drawn_study(tmp_path)
    mirror = StudyMirror(str(tmp_path / "shared"), study_dir)
    mirror.begin()
    here = StudyDir(tmp_path / "new" / study_dir.name)
    monkeypatch.setattr(study_mirror, "study_mirror", lambda *_: StudyMirror(str(tmp_path / "shared"), here))
    with pytest.raises(RunError, match=r"already holds a study; go on with it \(--resume\)"):
        look_into_storage(study, here, resume=False)
    look_into_storage(study, here, resume=True)
    assert here.holds_study
