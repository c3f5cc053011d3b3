"""What commands show on a terminal of 80 columns, in a pipe, with --quiet and with --json."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from drawn_study import drawn_study
from run_helpers import LineTask, child_command, line_config
from terminal import COLOUR, lines_of, on_terminal

from cabruca.cli.main import main
from cabruca.data.synthetic import draw_plot
from cabruca.run import run_training


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, a study, a practice plot and a configuration of it."""
    folder = tmp_path_factory.mktemp("terminal")
    for name in ("one", "two"):
        config = line_config(folder, experiment_name=name, training__num_epochs=1)
        run_training(config, task_factory=LineTask, quiet=True)
    drawn_study(folder / "study")
    plot = draw_plot(folder / "plot", size_px=256, gsd_m=0.1, seed=0)
    paths = {"train_dir": plot.images_dir, "val_dir": plot.images_dir}
    paths |= {"train_annotations": plot.train_annotations, "val_annotations": plot.val_annotations}
    text = "data: {tile_size: 64, overlap: 16, " + ", ".join(f"{k}: {v}" for k, v in paths.items()) + "}\n"
    (folder / "plot.yaml").write_text(text)
    return folder


def cabruca(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "cabruca", *map(str, words)]


def test_the_epoch_table_and_the_bar_fit_80_columns(tmp_path: Path) -> None:
    config = line_config(tmp_path, experiment_name="a", training__num_epochs=12)
    (tmp_path / "c.json").write_text(json.dumps(config.to_dict()))
    code, seen = on_terminal(child_command(tmp_path / "c.json"))
    assert code == 0, seen
    lines = [line for line in lines_of(seen) if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    head = next(line for line in lines if line.split()[:3] == ["epoch", "train", "val"])
    rows = [line for line in lines if re.match(r" +\d+/12 +\S+ +\S+ +0\.\d+", line)]
    assert len(rows) >= 12
    assert {len(row) for row in rows} == {len(head)} == {80}, "columns stand under their heads"
    assert any("━" in line for line in lines), "a live bar"
    assert COLOUR.search(seen)
    _, plain = on_terminal(child_command(tmp_path / "c.json", "--resume", "auto"), environment={"NO_COLOR": "1"})
    assert not COLOUR.search(plain)


def test_the_leaderboard_fits_80_columns_and_has_colours(outputs: Path) -> None:
    words = cabruca("tune", "status", outputs / "study" / "outputs" / "studies" / "drawn")
    code, seen = on_terminal(words)
    assert code == 0, seen
    table = [
        line for line in lines_of(seen) if re.match(r" *\d* +\d+ *(finished|stopped|running|failed|waiting)", line)
    ]
    assert len(table) >= 7
    assert max(map(len, table)) <= 80
    assert COLOUR.search(seen)
    code, plain = on_terminal(words, environment={"NO_COLOR": "1"})
    assert code == 0
    assert not COLOUR.search(plain)
    assert lines_of(plain) == lines_of(seen)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_verdicts_and_errors_have_colours_on_a_terminal_alone(outputs: Path, environment: dict[str, str]) -> None:
    code, seen = on_terminal(cabruca("config", "validate", outputs / "plot.yaml"), environment=environment)
    assert code == 0
    assert f"{outputs / 'plot.yaml'}: valid" in "".join(lines_of(seen))
    code, wrong = on_terminal(cabruca("config", "validate", outputs / "none.yaml"), environment=environment)
    assert code == 2
    assert lines_of(wrong)[0].startswith("cabruca: error: ")
    assert {bool(COLOUR.search(text)) for text in (seen, wrong)} == {not environment}


LOOKS: list[list[str]] = [
    ["checkpoints", "list", "{o}/one"],
    ["checkpoints", "show", "{o}/one"],
    ["checkpoints", "verify", "{o}/one"],
    ["checkpoints", "prune", "{o}/one", "--keep", "9", "--dry-run"],
    ["compare", "{o}/one", "{o}/two"],
    ["config", "show", "{o}/plot.yaml"],
    ["config", "validate", "{o}/plot.yaml"],
    ["data", "synth", "--out", "{o}/more", "--size-px", "128"],
    ["data", "check", "--config", "{o}/plot.yaml"],
    ["data", "stats", "--config", "{o}/plot.yaml", "--no-land-cover"],
    ["tune", "status", "{o}/study/outputs/studies/drawn"],
    ["tune", "show", "{o}/study/outputs/studies/drawn"],
    ["tune", "best", "{o}/study/outputs/studies/drawn"],
]


@pytest.mark.parametrize("words", LOOKS, ids=lambda words: " ".join(words[:2]))
def test_json_is_one_object_on_one_line(outputs: Path, words: list[str]) -> None:
    given = [word.format(o=outputs) for word in words]
    result = CliRunner().invoke(main, [*given, "--json"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    assert isinstance(json.loads(result.stdout, parse_constant=_refuse), dict)
    plain = CliRunner().invoke(main, given)
    assert plain.exit_code == 0
    assert "\x1b" not in plain.stdout
    assert plain.stdout != result.stdout


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


@pytest.mark.parametrize(
    "words", [w for w in LOOKS if w[1] in ("verify", "prune", "validate", "synth", "stats")], ids=lambda w: w[1]
)
def test_quiet_says_nothing_where_all_is_well(outputs: Path, words: list[str]) -> None:
    result = CliRunner().invoke(main, [*(word.format(o=outputs) for word in words), "--quiet"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_quiet_check_says_what_must_be_mended(outputs: Path) -> None:
    same = f"data.val_annotations={outputs / 'plot' / 'train.json'}"
    wrong = ["data", "check", "--config", str(outputs / "plot.yaml"), "--set", same]
    loud, quiet = (CliRunner().invoke(main, [*wrong, *more]) for more in ([], ["--quiet"]))
    assert loud.exit_code == quiet.exit_code
    told = [line for line in loud.stdout.splitlines() if line.lstrip().startswith(("warning:", "error:"))]
    assert quiet.stdout.splitlines() == told
    assert 0 < len(told) < len(loud.stdout.splitlines())


def test_report_and_export_write_the_same_and_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SimpleNamespace(values={"cacao_trees": 3.0, "shade_trees": 1.0, "area_ha": 0.5})
    written = SimpleNamespace(whole=whole, plots=(), files=(tmp_path / "report.html",), warnings=())
    exported = SimpleNamespace(path="d.onnx", side="d.onnx.json", outputs=("semantic",), off=0.0, left_out={"a": "b"})
    asked: list[Any] = []
    monkeypatch.setattr("cabruca.predict.report.report", lambda *given, **more: asked.append((given, more)) or written)
    monkeypatch.setattr("cabruca.exporting.export", lambda *given, **more: asked.append((given, more)) or exported)
    for words in (["report", "m.gpkg"], ["export", "--checkpoint", "c.pth", "--format", "onnx", "--out", "d.onnx"]):
        loud, quiet = (CliRunner().invoke(main, [*words, *more]) for more in ([], ["--quiet"]))
        assert (loud.exit_code, quiet.exit_code) == (0, 0), loud.output + quiet.output
        assert loud.stdout
        assert (quiet.stdout, quiet.stderr) == ("", "")
        assert asked.pop() == asked.pop()


def test_evaluate_gives_its_numbers_on_stdout_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def measure(*_: object, **options: Any) -> dict[str, float | None]:
        asked.update(options)
        return {"mAP": 0.5, "mIoU": None}

    monkeypatch.setattr("cabruca.evaluation.evaluate", measure)
    words = ["evaluate", "--checkpoint", "c.pth", "--images", "i", "--annotations", "a.json"]
    result = CliRunner().invoke(main, [*words, "--json", "-", "--pictures", "drawn", "--num-pictures", "2"])
    assert result.exit_code == 0, result.output
    assert result.stdout == '{"mAP": 0.5, "mIoU": null}\n'
    assert (asked["pictures_dir"], asked["plots_dir"], asked["num_pictures"]) == ("drawn", "drawn", 2)
    assert CliRunner().invoke(main, [*words, "--quiet"]).stdout == ""


def test_evaluate_ends_with_what_most_people_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"cacao": (171, 187), "shade": (12, 10), "total": (183, 197), "oil_palm": (3, 0)}
    numbers: dict[str, float | None] = {f"{name}_count": float(found) for name, (found, _) in counts.items()}
    numbers |= {f"{name}_count_true": float(true) for name, (_, true) in counts.items()}
    numbers |= {"total_count_accuracy": 0.92, "mAP": 0.5512, "mAP_50": 0.98734, "canopy_iou": 0.7, "zz": 1.0}
    monkeypatch.setattr("cabruca.evaluation.evaluate", lambda *_, **__: dict(sorted(numbers.items())))
    words = ["evaluate", "--checkpoint", "c.pth", "--images", "i", "--annotations", "a.json"]
    assert CliRunner().invoke(main, words).stdout.splitlines()[-8:] == [
        "zz                    1.0000",
        "",
        "mAP 0.5512   mAP_50 0.9873   canopy IoU 0.7000",
        "crowns, summed over the pictures:",
        "  cacao: 171 found, 187 in the truth (-8.6%)",
        "  oil_palm: 3 found, 0 in the truth",
        "  shade: 12 found, 10 in the truth (+20.0%)",
        "  total: 183 found, 197 in the truth (-7.1%)",
    ]
    for name in numbers:
        numbers[name] = None if name != "zz" else 1.0
    assert CliRunner().invoke(main, words).stdout.splitlines()[-1] == "zz                    1.0000"
