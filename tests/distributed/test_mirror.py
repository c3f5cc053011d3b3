"""The copy of a run's folder in a shared place: complete, no half files, the newer side wins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")

from ray_line import alone, assert_same_weights, many, weights

from cabruca.distributed.mirror import Mirror, inside
from cabruca.errors import RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.train import checkpoint


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def run_dir(tmp_path: Path) -> RunDir:
    """A finished run of one epoch."""
    alone(many(tmp_path, training__num_epochs=1))
    return RunDir(tmp_path / "alone")


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_what_is_pushed_is_fetched(run_dir: RunDir, tmp_path: Path, form: str) -> None:
    place = form.format(tmp_path / "shared")
    Mirror(place, "alone").push(run_dir)
    assert files(tmp_path / "shared" / "alone") == files(run_dir.path)
    other = RunDir(tmp_path / "elsewhere" / "alone")
    assert Mirror(place, "alone").fetch(other)
    assert files(other.path) == files(run_dir.path)
    assert checkpoint.is_intact(other.latest)
    assert not Mirror(place, "alone").fetch(other), "the same is not fetched again"


def test_only_what_changed_is_sent_again_and_temporary_files_never(run_dir: RunDir, tmp_path: Path) -> None:
    mirror = Mirror(str(tmp_path / "shared"), "alone")
    mirror.push(run_dir)
    copy = tmp_path / "shared" / "alone"
    (copy / "train.log").unlink()
    (run_dir.path / ".status.json.tmp").write_text("half")
    run_dir.status.write_text('{"state": "running"}')
    mirror.push(run_dir)
    assert (copy / "status.json").read_text() == '{"state": "running"}'
    assert not (copy / "train.log").exists()
    assert not list(copy.rglob(".*"))


def test_a_part_of_the_folder_is_sent_alone(run_dir: RunDir, tmp_path: Path) -> None:
    """What a run leaves after its end, such as its test, is not worth sending gigabytes of checkpoints again."""
    (run_dir.test / "pictures").mkdir(parents=True)
    (run_dir.test / "metrics.json").write_text("{}")
    (run_dir.test / "pictures" / "test_1.png").write_bytes(b"png")
    Mirror(str(tmp_path / "shared"), "alone").push(run_dir, [run_dir.test, run_dir.log])
    expected = {"test/metrics.json", "test/pictures/test_1.png", "train.log"}
    assert files(tmp_path / "shared" / "alone").keys() == expected


def test_the_newer_side_wins(run_dir: RunDir, tmp_path: Path) -> None:
    mirror = Mirror(str(tmp_path / "shared"), "alone")
    mirror.push(run_dir)
    ahead = many(tmp_path, training__num_epochs=2)
    alone(ahead, resume="auto", explicit={"training.num_epochs": 2})
    before = files(run_dir.path)
    assert not mirror.fetch(run_dir), "the folder is further on than its copy"
    assert files(run_dir.path) == before
    mirror.push(run_dir)
    behind = RunDir(tmp_path / "behind" / "alone")
    alone(many(tmp_path / "behind", training__num_epochs=1))
    assert mirror.fetch(behind)
    assert_same_weights(weights(many(tmp_path / "behind"), "alone"), weights(ahead, "alone"), rel=0)


def test_a_run_is_seen_by_its_status(run_dir: RunDir, tmp_path: Path) -> None:
    mirror = Mirror(str(tmp_path / "shared"), "alone")
    assert not mirror.holds_run()
    mirror.push(run_dir)
    assert mirror.holds_run()


def test_who_vouches_comes_last(run_dir: RunDir, tmp_path: Path) -> None:
    """A copy that breaks off has no .json without its .pth, and no status before all else."""
    from pyarrow.fs import LocalFileSystem

    sent: list[str] = []

    class Spy:
        def __init__(self) -> None:
            self.inner = LocalFileSystem()

        def move(self, source: str, target: str) -> None:
            sent.append(target.rpartition("/")[2])
            self.inner.move(source, target)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    Mirror(str(tmp_path / "shared"), "alone", filesystem=Spy()).push(run_dir)
    assert sent[-1] == "status.json"
    for name in ("checkpoint_latest", "checkpoint_best"):
        assert sent.index(f"{name}.pth") < sent.index(f"{name}.json")


def test_one_file_of_two_names_is_sent_once(run_dir: RunDir, tmp_path: Path) -> None:
    """The best checkpoint is the latest, as long as the run gets better."""
    from pyarrow.fs import LocalFileSystem

    assert run_dir.best.stat().st_ino == run_dir.latest.stat().st_ino
    opened: list[str] = []

    class Spy:
        def __init__(self) -> None:
            self.inner = LocalFileSystem()

        def open_output_stream(self, target: str) -> object:
            opened.append(target.rpartition("/")[2])
            return self.inner.open_output_stream(target)

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    Mirror(str(tmp_path / "shared"), "alone", filesystem=Spy()).push(run_dir)
    assert len([name for name in opened if name.endswith(".pth.tmp")]) == 1
    assert files(tmp_path / "shared" / "alone") == files(run_dir.path)


@pytest.mark.parametrize(
    ("storage", "expected"),
    [
        ("/nfs/runs", "/nfs/runs/plot"),
        ("/nfs/why?/", "/nfs/why?/plot"),
        ("s3://bucket/runs/", "s3://bucket/runs/plot"),
        ("s3://bucket/runs?region=eu-west-1&scheme=http", "s3://bucket/runs/plot?region=eu-west-1&scheme=http"),
    ],
)
def test_the_options_of_a_uri_stay_last(storage: str, expected: str) -> None:
    assert inside(storage, "plot") == expected


def test_a_place_that_is_no_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"distributed.storage_path nowhere://x/run cannot be reached"):
        Mirror("nowhere://x", "run")
    (tmp_path / "file").write_text("")
    run = RunDir.create(tmp_path, "run")
    run.status.write_text(json.dumps({}))
    with pytest.raises(RunError, match=r"file/run cannot be written .*; the run's own folder is whole"):
        Mirror(str(tmp_path / "file"), "run").push(run)
