"""What the predecessor's users wrote goes on loading, to the same values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from predecessor_files import CONFIGS, nested, snippets, values

from cabruca.config.load import load_config, notices, read_raw, to_yaml
from cabruca.config.schema import Config
from cabruca.config.views import flat, plain

PRESETS = Path(__file__).resolve().parents[2] / "configs"


def test_every_readme_snippet_loads_to_the_values_it_says(predecessor: Path, tmp_path: Path) -> None:
    found = snippets(predecessor)
    assert len(found) == 9, "seven yaml fences and two of keys in python fences"
    for number, text in enumerate(found):
        file = tmp_path / f"snippet_{number}.yaml"
        file.write_text(text, encoding="utf-8")
        config = flat(load_config(file))
        said = {key: value for key, value in _dotted(read_raw(file)).items() if key != "optimizer.param_groups"}
        assert said or "param_groups" in text
        for key, value in said.items():
            assert plain(config[key]) == value, f"{key} in snippet {number}"


def test_eta_min_of_the_readme_is_a_number(predecessor: Path, tmp_path: Path) -> None:
    text = next(snippet for snippet in snippets(predecessor) if "eta_min: 1e-7" in snippet)
    assert isinstance(yaml.safe_load(text)["scheduler"]["eta_min"], str), "the fault that is guarded against"
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_config(file).scheduler.eta_min == 1e-7


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_every_key_of_both_files_loads(predecessor: Path, tmp_path: Path, column: int, suffix: str) -> None:
    said = values(predecessor, column)
    assert len(said) == (67, 34)[column], "keys in the table; mend the reader of the table when it has grown"
    file = tmp_path / f"c{suffix}"
    text = json.dumps(nested(said)) if suffix == ".json" else yaml.safe_dump(nested(said))
    file.write_text(text, encoding="utf-8")
    config = flat(load_config(file))
    for key, value in said.items():
        loaded = plain(config[key])
        if key == "optimizer.param_groups":
            loaded = [{name: group[name] for name in ("name", "lr", "weight_decay")} for group in loaded]
        assert loaded == value, key


@pytest.mark.parametrize("column", [0, 1])
def test_every_key_of_both_files_is_used(predecessor: Path, column: int) -> None:
    assert notices(nested(values(predecessor, column))) == []


def test_profile_snippet_is_served(predecessor: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(next(s for s in snippets(predecessor) if "profile: true" in s), encoding="utf-8")
    config = load_config(file)
    assert (config.training.profile, config.training.profile_batches) == (True, (10, 20))
    assert notices(config) == []


def test_transfer_snippet_is_served(predecessor: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(next(s for s in snippets(predecessor) if "pretrained_checkpoint" in s), encoding="utf-8")
    config = load_config(file)
    assert config.model.pretrained_checkpoint == "path/to/pretrained_model.pth"
    assert [(group.name, group.lr) for group in config.optimizer.param_groups] == [("backbone", 1e-5), ("heads", 1e-4)]
    assert notices(config) == []


def test_defaults_and_resolved_files_give_no_notice(tmp_path: Path) -> None:
    assert notices(Config()) == []
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(Config()), encoding="utf-8")
    assert notices(load_config(file)) == []


@pytest.mark.parametrize("column", [0, 1])
def test_presets_carry_the_predecessors_values_or_say_the_old_one(predecessor: Path, column: int) -> None:
    file = PRESETS / CONFIGS[column]
    config, text = flat(load_config(file)), file.read_text(encoding="utf-8").splitlines()
    for key, old in values(predecessor, column).items():
        ours = plain(config[key])
        if key == "optimizer.param_groups":
            ours = [{name: group[name] for name in ("name", "lr", "weight_decay")} for group in ours]
        if ours == old:
            continue
        leaf = key.split(".")[-1]
        told = [line for line in text if leaf in line and "predecessor" in line]
        assert told, f"{file.name}: {key} is {ours}, was {old}; say so in its comment: 'predecessor: {old}'"


def _dotted(raw: dict[str, object], prefix: str = "") -> dict[str, object]:
    out: dict[str, object] = {}
    for key, value in raw.items():
        out.update(_dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return out
