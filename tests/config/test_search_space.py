"""Search spaces: what is read, what a trial gets, what is refused before the first trial."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cabruca.config.load import config_from_dict
from cabruca.config.search_space import SearchSpace, parse_space
from cabruca.errors import ConfigError

BASE = config_from_dict({"data": {"tile_size": 256, "overlap": 32}, "optimizer": {"lr": 5e-4}})
EVERY_KIND: dict[str, Any] = {
    "optimizer.momentum": {"when": {"optimizer.type": "sgd"}, "uniform": [0.8, 0.99]},  # before what it names
    "optimizer.type": {"choice": ["adamw", "sgd"]},
    "optimizer.lr": {"loguniform": [5.0e-5, 2.0e-3]},
    "scheduler.gamma": {"quniform": [0.1, 0.9, 0.1]},
    "validation.max_detections": {"int": [100, 300]},
    "data.tile_size": {"qint": [128, 256, 32]},
    "model.heads": {"choice": [["instance"], ["instance", "semantic"]]},
    "scheduler.T_max": {"choice": [None, 5]},
    "training.compile": {"choice": [True, False]},
}


class Scripted:
    """A trial that answers as it is told, and notes what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {key.replace("__", "."): value for key, value in answers.items()}
        self.asked: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, **how: Any) -> float:
        self.asked[name] = (low, high, how)
        return self.answers.get(name, low)

    def suggest_int(self, name: str, low: int, high: int, **how: Any) -> int:
        self.asked[name] = (low, high, how)
        return self.answers.get(name, high)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        self.asked[name] = tuple(choices)
        return self.answers.get(name, choices[0])


def space(**entries: Any) -> SearchSpace:
    return parse_space({key.replace("__", "."): entry for key, entry in entries.items()})


def refusal(call: Any, *args: Any) -> str:
    with pytest.raises(ConfigError) as error:
        call(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_kind_asks_optuna_what_it_says() -> None:
    trial = Scripted(optimizer__type="sgd")
    params = parse_space(EVERY_KIND).suggest(trial)
    assert trial.asked["optimizer.momentum"] == (0.8, 0.99, {"log": False})
    assert trial.asked["optimizer.lr"] == (5e-5, 2e-3, {"log": True})
    assert trial.asked["scheduler.gamma"] == (0.1, 0.9, {"step": 0.1})
    assert trial.asked["validation.max_detections"] == (100, 300, {"step": 1})
    assert trial.asked["data.tile_size"] == (128, 256, {"step": 32})
    assert trial.asked["model.heads"] == ('["instance"]', '["instance", "semantic"]')
    assert trial.asked["scheduler.T_max"] == (None, 5)
    assert params["model.heads"] == ["instance"]
    assert params["validation.max_detections"] == 300


def test_a_conditional_parameter_is_there_only_where_its_condition_holds() -> None:
    searched = parse_space(EVERY_KIND)
    assert "optimizer.momentum" in searched.suggest(Scripted(optimizer__type="sgd"))
    assert "optimizer.momentum" not in searched.suggest(Scripted(optimizer__type="adamw"))
    assert searched.keys.index("optimizer.type") < searched.keys.index("optimizer.momentum")


def test_a_condition_on_a_parameter_that_is_not_there_does_not_hold() -> None:
    searched = space(
        c={"when": {"b": 1}, "choice": [1, 2]}, b={"when": {"a": True}, "choice": [1, 2]}, a={"choice": [True, False]}
    )
    assert searched.suggest(Scripted(a=False)) == {"a": False}
    assert searched.suggest(Scripted(a=True, b=1)) == {"a": True, "b": 1, "c": 1}
    assert searched.suggest(Scripted(a=True, b=2)) == {"a": True, "b": 2}


def test_one_is_not_true_in_a_condition() -> None:
    searched = space(a={"choice": [0, 1]}, b={"when": {"a": [1]}, "choice": [3, 4]})
    assert searched["b"].when == {"a": (1,)}
    assert not searched.exists(searched["b"], {"a": True})
    assert searched.exists(searched["b"], {"a": 1})


def test_optuna_itself_gives_values_that_the_schema_takes_and_that_travel_back() -> None:
    searched = parse_space(EVERY_KIND)
    searched.check(BASE)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3, n_startup_trials=5))
    kinds = set()
    for _ in range(20):
        trial = study.ask()
        params = searched.suggest(trial)
        kinds.add(params["optimizer.type"])
        assert searched.point(params) == params
        encoded = searched.encode(params)
        assert encoded.keys() == trial.params.keys()
        assert all(encoded[key] == pytest.approx(value) for key, value in trial.params.items())
        assert searched.decode(trial.params) == params
        study.tell(trial, float(params["optimizer.lr"]))
    assert kinds == {"adamw", "sgd"}


def test_steps_are_decimal() -> None:
    searched = space(a={"quniform": [0.1, 0.9, 0.1]})
    assert searched["a"].values() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert searched.suggest(Scripted(a=0.1 + 2 * 0.1)) == {"a": 0.3}  # 0.30000000000000004


@given(st.integers(-50, 50), st.integers(1, 9), st.integers(1, 40), st.sampled_from(["1", "0.1", "0.01", "1e-05"]))
@settings(max_examples=60, deadline=None)
def test_all_steps_of_a_range_are_its_values_and_nothing_between(low: int, step: int, count: int, unit: str) -> None:
    scale = float(unit)
    ends = [float(f"{v * scale:.5f}") for v in (low, low + step * count, step)]
    searched = space(a={"quniform": ends})
    values = searched["a"].values()
    assert (values[0], values[-1], len(values)) == (ends[0], ends[1], count + 1)
    assert all(searched["a"].holds(value) for value in values)
    assert not searched["a"].holds(values[0] + ends[2] / 2)
    assert not searched["a"].holds(values[-1] + ends[2])


def test_ends_of_int_belong_to_it() -> None:
    searched = space(a={"int": [2, 4]}, b={"qint": [32, 96, 32]})
    assert searched["a"].values() == [2, 3, 4]
    assert searched["b"].values() == [32, 64, 96]
    assert [searched["b"].holds(v) for v in (32, 96, 48, 64.0, True)] == [True, True, False, False, False]


def test_grid_is_every_value_as_optuna_takes_it() -> None:
    searched = space(a={"choice": [[1], [2, 3]]}, b={"qint": [32, 96, 32]}, c={"choice": [None, False, "x", 0.5]})
    assert searched.grid() == {"a": ["[1]", "[2, 3]"], "b": [32, 64, 96], "c": [None, False, "x", 0.5]}
    study = optuna.create_study(sampler=optuna.samplers.GridSampler(searched.grid(), seed=0))
    found = [str(searched.suggest(study.ask())) for _ in range(24)]
    assert len(set(found)) == 24


def test_a_grid_refuses_what_it_cannot_list() -> None:
    assert "optimizer.lr: loguniform has no list of values" in refusal(space(optimizer__lr={"loguniform": [1, 2]}).grid)
    conditional = space(a={"choice": [1, 2]}, b={"when": {"a": 1}, "choice": [1, 2]})
    assert "search_space.b has a condition, and a grid would repeat" in refusal(conditional.grid)


BAD_ENTRIES = [
    ({}, "search_space is empty; give one key"),
    ({"a": 3}, "search_space.a: 3 is no kind with its values; write one, such as choice: [1, 2]"),
    ({"a": {"logunform": [1, 2]}}, "search_space.a: 'logunform' is no kind of parameter; did you mean 'loguniform'?"),
    ({"a": {"uniform": [0, 1], "int": [0, 1]}}, "search_space.a has uniform and int; write one kind"),
    ({"a": {"when": {"b": 1}}}, "search_space.a has none; write one kind"),
    ({"a": {"uniform": 5}}, "search_space.a: uniform: 5 is not a list; write uniform: [from, to]"),
    ({"a": {"choice": "adamw"}}, "search_space.a: choice: adamw is not a list"),
    ({"a": {"uniform": [0, 1, 2]}}, "search_space.a: uniform [0, 1, 2] has 3 values; write uniform: [from, to]"),
    ({"a": {"uniform": [1, "2"]}}, 'search_space.a: uniform [1, "2"]: 2 is not a number'),
    ({"a": {"uniform": [0, float("inf")]}}, "search_space.a: uniform [0, Infinity]: Infinity is not a number"),
    ({"a": {"int": [True, 3]}}, "search_space.a: int [true, 3]: true is not a number"),
    ({"a": {"int": [1, 2.5]}}, "search_space.a: int [1, 2.5]: 2.5 is not a whole number; write uniform"),
    ({"a": {"qint": [1, 9, 0.5]}}, "search_space.a: qint [1, 9, 0.5]: 0.5 is not a whole number; write quniform"),
    ({"a": {"loguniform": [1, 0.1]}}, "begins with 1.0 and ends with 0.1; write loguniform: [0.1, 1.0]"),
    ({"a": {"loguniform": [0, 0.1]}}, "begins at 0.0, which has no logarithm"),
    ({"a": {"uniform": [2, 2]}}, "search_space.a: uniform [2, 2] is one value; give two ends, or put a under set"),
    ({"a": {"quniform": [0, 1, 0.3]}}, "does not end on a step; the last is 0.9: write quniform: [0, 0.9, 0.3]"),
    ({"a": {"qint": [0, 4, -1]}}, "step -1 does not lie above 0"),
    ({"a": {"choice": ["x"]}}, 'search_space.a: choice ["x"] leaves no choice; give two values'),
    ({"a": {"choice": [1, 2, 1.0]}}, "search_space.a: choice has 1.0 twice"),
    ({"a": {"choice": [1, True]}}, "search_space.a: choice has true twice"),
    ({"a": {"when": "b", "choice": [1, 2]}}, "search_space.a: when: b is no condition"),
    ({"a": {"when": {"b": []}, "choice": [1, 2]}, "b": {"choice": [1, 2]}}, 'when: {"b": []} is no condition'),
    ({"a": {"when": {"bee": 1}, "choice": [1, 2]}, "be": {"choice": [1, 2]}}, "did you mean 'be'?"),
    ({"a": {"when": {"b": 3}, "choice": [1, 2]}, "b": {"choice": [1, 2]}}, "b is never 3; it has one of 1, 2"),
    ({"a": {"when": {"b": "sdg"}, "choice": [1, 2]}, "b": {"choice": ["adamw", "sgd"]}}, "did you mean 'sgd'?"),
    ({"a": {"when": {"b": 0.5}, "choice": [1, 2]}, "b": {"uniform": [0, 1]}}, "b is a uniform, which hardly ever"),
    (
        {"a": {"when": {"b": 1}, "choice": [1, 2]}, "b": {"when": {"a": 1}, "choice": [1, 2]}},
        "search_space: conditions go round in a circle, a -> b -> a",
    ),
]


@pytest.mark.parametrize(("raw", "line"), BAD_ENTRIES, ids=[line[:50] for _, line in BAD_ENTRIES])
def test_a_mistake_in_the_space_is_one_line(raw: dict[str, Any], line: str) -> None:
    assert line in refusal(parse_space, raw)


AGAINST_SCHEMA = [
    ({"optimizer.lrr": {"uniform": [0, 1]}}, "search_space.optimizer.lrr is not a known key; did you mean 'lr'?"),
    ({"optimizer.lr": {"uniform": [0, 1]}}, "search_space.optimizer.lr: 0.0 is not above 0.0"),
    ({"optimizer.momentum": {"uniform": [0.5, 1.0]}}, "search_space.optimizer.momentum: 1.0 is not below 1.0"),
    ({"optimizer.type": {"choice": ["adamw", "sdg"]}}, 'type: "sdg" is not one of adamw, adam, sgd; did you mean'),
    ({"data.tile_size": {"int": [128, 256]}}, "129 is not a multiple of 32; the default is 512; write qint:"),
    ({"data.tile_size": {"qint": [128, 2000, 36]}}, "search_space.data.tile_size: 164 is not a multiple of 32"),
    ({"data.batch_size": {"uniform": [1, 4]}}, "1.0 is not a whole number; write digits, such as 4; write int or qint"),
    ({"data.overlap": {"choice": [32, 512]}}, "search_space.data.overlap 512 is not smaller than tile_size 256"),
    ({"optimizer": {"choice": [1, 2]}}, "search_space.optimizer is a section; search keys in it, such as optimizer.ty"),
    ({"optimizer.lr.x": {"choice": [1, 2]}}, "search_space.optimizer.lr.x"),
    ({"optimizer.param_groups.0.lr": {"uniform": [1, 2]}}, "'0' is no place in a list of 0"),
    ({"training.seed": {"int": [0, 9]}}, "search_space.training.seed is not for a search: seeds are no setting"),
    ({"data.val_annotations": {"choice": ["a", "b"]}}, "trials are compared on one validation set"),
    (
        {"optimizer.momentum": {"when": {"optimizer.type": "sgd"}, "uniform": [0.0, 0.9]}, **{
            "optimizer.type": {"choice": ["adamw", "sgd"]}}},
        "nesterov: true needs momentum",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "line"), AGAINST_SCHEMA, ids=[next(iter(raw)) for raw, _ in AGAINST_SCHEMA])
def test_what_the_schema_refuses_is_refused_before_the_first_trial(raw: dict[str, Any], line: str) -> None:
    assert line in refusal(parse_space(raw).check, BASE)


def test_values_that_fit_only_under_their_condition_pass() -> None:
    wide = {"data.tile_size": {"choice": [256, 512]}, "data.overlap": {"choice": [32, 256]}}
    assert "data.overlap 256 is not smaller" in refusal(parse_space(wide).check, BASE)
    wide["data.overlap"] = {"when": {"data.tile_size": 512}, "choice": [32, 256]}
    parse_space(wide).check(BASE)


def test_keys_in_a_list_of_the_base_can_be_searched() -> None:
    base = config_from_dict({"optimizer": {"param_groups": [{"name": "backbone", "lr": 1e-4}]}})
    parse_space({"optimizer.param_groups.0.lr": {"loguniform": [1e-5, 1e-3]}}).check(base)


POINTS = [
    ({"optimizer.l": 1}, "optimizer.l is not in the search space; did you mean 'optimizer.lr'?"),
    ({"optimizer.lr": 1}, "optimizer.lr: 1 is not in loguniform 5e-05 .. 0.002; widen it"),
    ({"data.tile_size": 140}, "data.tile_size: 140 is not in qint 128 .. 256 in steps of 32"),
    ({"model.heads": ["crown"]}, 'model.heads: ["crown"] is not in one of ["instance"], ["instance", "semantic"]'),
    ({"training.compile": 1}, "training.compile: 1 is not in one of true, false"),
    ({"optimizer.momentum": 0.9}, "optimizer.momentum exists only where optimizer.type: sgd; say so in the point"),
    ({"optimizer.type": "adamw", "optimizer.momentum": 0.9}, "optimizer.momentum exists only where"),
]


@pytest.mark.parametrize(("raw", "line"), POINTS, ids=[line[:40] for _, line in POINTS])
def test_a_point_outside_the_space_is_refused(raw: dict[str, Any], line: str) -> None:
    assert line in refusal(parse_space(EVERY_KIND).point, raw)


def test_a_point_may_leave_parameters_out_and_optuna_takes_it() -> None:
    searched = parse_space(EVERY_KIND)
    point = searched.point({"optimizer.type": "sgd", "optimizer.momentum": 0.9, "model.heads": ["instance"]})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(searched.encode(point))
    params = searched.suggest(study.ask())
    assert {key: params[key] for key in point} == point
    assert params.keys() == EVERY_KIND.keys()
