"""`cabruca data synth` and `cabruca data check`, on real files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from cabruca.cli.main import main
from cabruca.config.load import load_config
from cabruca.errors import DataError

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "training_config_light.yaml"


@pytest.fixture(scope="module")
def plot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plot of ground")
    result = CliRunner().invoke(main, ["data", "synth", "--output-dir", str(folder), "--size-px", "256", "--seed", "5"])
    assert result.exit_code == 0, result.output
    (folder / "said").write_text(result.stdout, encoding="utf-8")
    return folder


def flags_for(plot: Path) -> list[str]:
    """The `--set` flags in the line that synth printed."""
    said = (plot / "said").read_text(encoding="utf-8").splitlines()[-1]
    words = shlex.split(said.removeprefix("train on it: "))
    assert Path(words[0]).name == "cabruca"
    assert words[1:4] == ["train", "--config", "configs/training_config_light.yaml"]
    return words[4:]


def test_synth_says_what_it_drew_and_how_to_train_on_it(plot: Path) -> None:
    truth = [len(json.loads((plot / f"{name}.json").read_text())["annotations"]) for name in ("train", "val")]
    said = (plot / "said").read_text(encoding="utf-8")
    assert said.startswith(f"drawn: {truth[0]} crowns to train on, {truth[1]} held out, in {plot}")
    overrides = dict(word.split("=", 1) for word in flags_for(plot) if word != "--set")
    data = load_config(CONFIG, overrides).data
    assert all(Path(path).exists() for path in (data.train_dir, data.val_dir, data.train_annotations))


def test_check_is_content_with_it(plot: Path) -> None:
    result = CliRunner().invoke(main, ["data", "check", "--config", str(CONFIG), *flags_for(plot)])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "0 error(s)" in result.stdout


def test_check_lists_what_is_wrong_and_exits_2(plot: Path) -> None:
    flags = [flag.replace("val.json", "train.json") for flag in flags_for(plot)]
    result = CliRunner().invoke(main, ["data", "check", "--config", str(CONFIG), *flags])
    assert result.exit_code == 2
    assert "error: " in result.stdout
    assert result.stderr.startswith("cabruca: error: the data has ")
    assert result.stderr.count("\n") == 1


def test_check_of_data_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["data", "check", "--config", str(CONFIG), "--set", f"data.train_annotations={tmp_path}/no.json"]
    )
    assert result.exit_code == 2
    assert f"{tmp_path}/no.json" in result.stdout


def test_synth_refuses_a_plot_that_is_too_small(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["data", "synth", "--output-dir", str(tmp_path), "--size-px", "64"])
    assert result.exit_code == 2
    assert result.stderr.startswith("cabruca: error: Invalid value for '--size-px': 64 is not in the range x>=128")


@pytest.mark.parametrize("flag", ["--out", "--output-dir"])
def test_synth_takes_both_names_of_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flag: str) -> None:
    given: list[object] = []

    def draw(out: object, **_: object) -> None:
        given.append(out)
        raise DataError("that is enough")

    monkeypatch.setattr("cabruca.data.synthetic.draw_plot", draw)
    assert CliRunner().invoke(main, ["data", "synth", flag, str(tmp_path)]).exit_code == 2
    assert given == [str(tmp_path)]
