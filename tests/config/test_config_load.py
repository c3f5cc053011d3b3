"""A file becomes a configuration, or one line that says what to mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabruca.config.load import config_from_dict, load_config, parse_value, read_raw, to_yaml
from cabruca.config.schema import Config
from cabruca.config.strict_yaml import dump_yaml, parse_yaml
from cabruca.errors import ConfigError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, name: str = "c.yaml") -> Path:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return write


# value, rule, remedy; the first column is the file
REFUSED = [
    ("data: {bacth_size: 3}", "data.bacth_size is not a known key; did you mean 'batch_size'?"),
    ("lr: 3", "lr is not a known key; did you mean 'optimizer.lr'?"),
    ("training: {batch_size: 2}", "training.batch_size is not a known key; did you mean 'data.batch_size'?"),
    ("optimizer: {param_groups: [{name: heads, rate: 1}]}", "optimizer.param_groups[0].rate is not a known key; "),
    ("optimizer: {param_groups: [{lr: 3}]}", "optimizer.param_groups[0].name is missing; every entry of "),
    ("data: {batch_size: 0}", "data.batch_size: 0 is not above 0; the default is 4"),
    ("data: {batch_size: 2.5}", "data.batch_size: 2.5 is not a whole number; write digits, such as 4"),
    ("data: {batch_size: 1_000}", 'data.batch_size: "1_000" is not a whole number; write digits, such as 4'),
    ("data: {tile_size: 100}", "data.tile_size: 100 is not a multiple of 32; the default is 512"),
    ("data: {overlap: 600}", "data.overlap 600 is not smaller than tile_size 512; use 64"),
    ("data: {windows_per_epoch: all}", 'data.windows_per_epoch: "all" is not a whole number or auto; the default is '),
    ("data: {category_map: {1: 2}}", "data.category_map.1: 2 is not text; put it in quotes"),
    ("data: 3", "data: 3 is not a section; write 'key: value' lines under it"),
    ("optimizer: {lr: fast}", 'optimizer.lr: "fast" is not a number; write a number, such as 0.01 or 1e-4'),
    ("optimizer: {lr: '1e-4'}", 'optimizer.lr: "1e-4" is not a number; write a number, such as 0.01 or 1e-4'),
    ("optimizer: {lr: .nan}", "optimizer.lr: NaN is not a finite number; write a number, "),
    ("optimizer: {lr: .inf}", "optimizer.lr: Infinity is not a finite number; write a number, "),
    ("optimizer: {betas: [0.9]}", "optimizer.betas: [0.9] has too few values; the default is [0.9, 0.999]"),
    ("optimizer: {betas: [0.9, 1.0]}", "optimizer.betas[1]: 1.0 is not below 1.0; the default is [0.9, 0.999]"),
    ("optimizer: {betas: 3}", "optimizer.betas: 3 is not a list; write a list, such as [1, 2]"),
    ("optimizer: {type: SGD}", 'optimizer.type: "SGD" is not one of adamw, adam, sgd; did you mean \'sgd\'?'),
    ("optimizer: {param_groups: [{name: x}]}", "optimizer.param_groups: 'x' is none of backbone, heads, custom and "),
    ("optimizer: {param_groups: [{name: heads}, {name: heads}]}", "optimizer.param_groups names 'heads' twice; keep "),
    ("optimizer: {type: sgd, momentum: 0}", "optimizer.nesterov: true needs momentum; set nesterov: false, or "),
    ("scheduler: {type: cosin}", "scheduler.type: \"cosin\" is not one of cosine, plateau, "),
    ("tracking: {mlflow: yes}", 'tracking.mlflow: "yes" is not true or false; write true or false, without quotes'),
    ("training: {precision: bf16}", "training.precision: bf16 needs mixed_precision: true; set it, or precision: auto"),
    ("model: {use_sam: true}", "model.use_sam: true is not supported (cabruca has no SAM branch); set use_sam: false"),
    ("model: {heads: []}", "model.heads is empty; name at least one of instance, semantic, crown, density"),
    ("model: {fpn_channels: 100}", "model.fpn_channels 100 is not a multiple of 32 (GroupNorm has 32 groups); use 96"),
    ("model: {instance_class_names: [a]}", "model.instance_class_names has 1 names, num_instance_classes: 3 (it"),
    ("loss: {semantic_class_weights: [1]}", "loss.semantic_class_weights has 1 values for 6 classes; give 6"),
    ("experiment_name: ../x", 'experiment_name: "../x" is not a folder name; use letters, digits, '),
    ("device: tpu\ndata: {batch_size: 0}", 'device: "tpu" is not one of auto, cpu, cuda, mps; did you mean '),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), REFUSED)
def test_wrong_keys_and_values_are_one_line_with_value_rule_and_remedy(text: str, line: str, write: Write) -> None:
    file = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: {line}")
    assert "\n" not in message
    assert "pydantic" not in message


UNREADABLE = [
    ("", "c.yaml is empty; write at least one key"),
    ("# nothing\n", "c.yaml is empty; write at least one key"),
    ("", "c.json is empty; write at least one key"),
    ("- a\n- b\n", "c.yaml holds a list, not a mapping; write 'key: value' lines"),
    ("device: cpu\ndevice: cuda\n", "c.yaml, line 2: key 'device' is there twice (first in line 1)"),
    ("data:\n  tile_size: 64\n  tile_size: 96\n", "c.yaml, line 3: key 'tile_size' is there twice (first in line 2)"),
    ("data:\n  a: [1\nb: 2\n", "c.yaml, line 3: "),
    ("data:\n\ttile_size: 64\n", "c.yaml, line 2: found character '\\t' that cannot start any token"),
    ("a: &a [*a]\n", "c.yaml refers to itself"),
    ("x: !!python/object/apply:os.system [id]\n", "c.yaml, line 1: could not determine a constructor for the tag"),
    ("device: cpu\n---\ndevice: cuda\n", "c.yaml, line 2: but found another document"),
    ("? [a]\n: 1\n", "c.yaml, line 1: a key is a list or a mapping"),
    ("x: !!int y\n", "c.yaml: invalid literal for int()"),
    ("x: !!timestamp 2024-01-01\n", "a date; write plain numbers, text, lists and mappings"),
    ('{"device": "cpu",}', "c.json, line 1: "),
    ('{"device": "cpu", "device": "cuda"}', "c.json: key 'device' is there twice; keep one of them"),
    ("[" * 100_000, "c.yaml: nested too deep for a configuration; flatten it"),
    ("[" * 100_000, "c.json: nested too deep for a configuration; flatten it"),
    ("a: \x00", "c.yaml: "),
]


@pytest.mark.parametrize(("text", "line"), UNREADABLE)
def test_files_that_are_no_configuration_are_one_line(text: str, line: str, write: Write, tmp_path: Path) -> None:
    file = write(text, "c.json" if "c.json" in line else "c.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    message = str(caught.value).replace(f"{tmp_path}/", "")
    assert line in message
    assert ";" in message or "alias" in message, "no remedy"


def test_several_findings_are_one_sentence_and_the_other_keys(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write("device: gpu\ndata: {batch_size: 0, tile_size: x}"))
    assert str(caught.value).endswith("(and 2 more: data.batch_size, data.tile_size)")


def test_missing_file_folder_and_foreign_bytes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; check the path"):
        load_config(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="is a folder; give the YAML or JSON file in it"):
        load_config(tmp_path)
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00d")
    with pytest.raises(ConfigError, match="is not UTF-8 text; give a YAML or JSON file"):
        load_config(tmp_path / "c.yaml")


def test_no_file_and_empty_sections_are_the_defaults(write: Write) -> None:
    assert load_config(None) == Config()
    assert load_config(write("data:\n  # tile_size: 64\n  augmentation:\ntracking:\n")) == Config()
    assert load_config(write("\ufeffdevice: auto\n")) == Config(), "with a byte order mark"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-7", 1e-7), ("1E5", 1e5), ("1.e-3", 1e-3), (".5", 0.5), ("-2.5e+3", -2500.0), ("5.", 5.0)],
        *[("010", 10), ("0o17", 15), ("0x1F", 31), ("+3", 3), ("1:30", "1:30"), ("1_000", "1_000")],
        *[("true", True), ("False", False), ("yes", "yes"), ("no", "no"), ("on", "on"), ("null", None), ("~", None)],
        *[("", None), ("2024-01-01", "2024-01-01"), ("[1, 2.5, a]", [1, 2.5, "a"]), ("{a: 1e-3}", {"a": 1e-3})],
        *[("a #b", "a #b"), ("#b", "#b"), ("'a #b'", "a #b"), ("=", "="), ("file:./mlruns", "file:./mlruns")],
    ],
)
def test_values_of_set_are_yaml_1_2(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value
    assert type(found) is type(value)


def test_merge_keys_may_repeat_what_they_bring(write: Write) -> None:
    text = "data: &a\n  tile_size: 64\n  overlap: 8\nvalidation: {}\n"
    assert read_raw(write(text + "x: &b {<<: *a, overlap: 16}\ny: {<<: *b, tile_size: 96}\n"))["y"] == {
        "tile_size": 96,
        "overlap": 16,
    }


_TRICKY = st.sampled_from(
    ["1e-7", "yes", "no", "null", "~", "0o17", "010", "1:30", "=", "<<", "2024-01-01", "", " ", "#", "a: b", "é", ".5"]
)
_TEXT = st.one_of(_TRICKY, st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20))
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), _NUMBER, _TEXT),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXT, inner, max_size=4)),
        max_leaves=12,
    )
)
def test_what_is_dumped_is_read_back_exactly(values: object) -> None:
    assert repr(parse_yaml(dump_yaml(values), "x")) == repr(values)


def test_configuration_round_trips_through_yaml_and_json(write: Write) -> None:
    config = config_from_dict(
        {
            "experiment_name": "1e-7",
            "data": {"category_map": {"no": "ignore", "1e-7": "cacao_tree", "Sabal palmetto: x": "shade_tree"}},
            "optimizer": {"lr": 1e-7 / 3, "param_groups": [{"name": "heads", "lr": 0.1 + 0.2}]},
            "model": {"heads": ["semantic"], "anchor_sizes_px": [16, 33.3, 64, 1e2]},
        }
    )
    assert load_config(write(to_yaml(config))) == config
    assert load_config(write(config.model_dump_json(), "c.json")) == config
    assert config_from_dict(config.to_dict()) == config
    assert load_config(write(to_yaml(config))).optimizer.param_groups[0].lr == 0.30000000000000004


def test_lists_become_tuples_and_whole_numbers_become_floats() -> None:
    config = config_from_dict({"data": {"bands": [4, 1, 2]}, "optimizer": {"lr": 1}})
    assert config.data.bands == (4, 1, 2)
    assert isinstance(config.optimizer.lr, float)


def test_secrets_are_not_shown_in_messages(write: Write) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write("tracking: {mlflow_uri: ['http://me:hunter2@host/']}"))
    assert "hunter2" not in str(caught.value)
    assert "me:***@host" in str(caught.value)
