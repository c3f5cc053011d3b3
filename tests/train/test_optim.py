"""Parameter groups: every trainable parameter in exactly one; optimizers; moments by name."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from line_run import go
from line_task import LineTask
from torch import nn

from cabruca.config.load import config_from_dict
from cabruca.config.schema import OptimizerConfig, ParamGroup
from cabruca.errors import CheckpointError, ConfigError
from cabruca.train.optim import OPTIMIZERS, Group, build_optimizer, left_out, load_optimizer, parameter_groups

PREDECESSOR = [
    {"name": "backbone", "lr": 1e-5, "weight_decay": 0.01},
    {"name": "heads", "lr": 1e-4, "weight_decay": 0.01},
    {"name": "custom", "lr": 2e-4, "weight_decay": 0.001},
]


def config(**values: Any) -> OptimizerConfig:
    return config_from_dict({"optimizer": values}).optimizer


def groups_of(**values: Any) -> dict[str, Group]:
    task = LineTask()
    return {g.name: g for g in parameter_groups(task.build_model(), config(**values), task.parameter_part)}


def test_parts_take_their_groups() -> None:
    groups = groups_of(param_groups=PREDECESSOR)
    assert {name: (g.lr, g.weight_decay, list(g.parameters)) for name, g in groups.items()} == {
        "backbone": (1e-5, 0.01, ["slope"]),
        "heads": (1e-4, 0.01, ["offset"]),
        "custom": (2e-4, 0.001, ["spare"]),
    }


def test_the_rest_gets_the_defaults_and_a_group_inherits_what_it_leaves_out() -> None:
    groups = groups_of(lr=3e-3, weight_decay=0.5, param_groups=[{"name": "heads", "lr": 1e-4}])
    assert list(groups["default"].parameters) == ["slope", "spare"]
    assert (groups["default"].lr, groups["default"].weight_decay) == (3e-3, 0.5)
    assert (groups["heads"].lr, groups["heads"].weight_decay) == (1e-4, 0.5)
    assert list(groups_of()) == ["default"]


def test_match_wins_over_parts_and_the_first_match_wins() -> None:
    wanted = [{"name": "heads"}, {"name": "s", "match": "s*"}, {"name": "slopes", "match": "sl*"}]
    with pytest.raises(ConfigError, match="'slopes' with match 'sl\\*' takes no trainable parameter; names begin with"):
        groups_of(param_groups=wanted)
    groups = groups_of(param_groups=[wanted[2], *wanted[:2]])
    assert {name: list(g.parameters) for name, g in groups.items()} == {
        "slopes": ["slope"],
        "heads": ["offset"],
        "s": ["spare"],
    }


def test_a_group_of_a_part_that_is_switched_off_is_left_out_and_said() -> None:
    """The standard preset with `model.heads: [instance]` has no custom part; its three groups must load."""
    model = nn.Linear(1, 1)
    chosen = config(param_groups=PREDECESSOR)
    groups = parameter_groups(model, chosen, lambda _: "heads")
    assert [(g.name, list(g.parameters)) for g in groups] == [("heads", ["weight", "bias"])]
    assert [line.split(" takes")[0] for line in left_out(groups, chosen)] == [
        "optimizer.param_groups 'backbone'",
        "optimizer.param_groups 'custom'",
    ]
    assert left_out(parameter_groups(LineTask().build_model(), chosen, LineTask().parameter_part), chosen) == []


def test_the_loop_says_which_groups_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    class WithoutCustom(LineTask):
        def parameter_part(self, name: str) -> str:
            return "heads"

    with caplog.at_level(logging.INFO, "cabruca"):
        _, reporter = go(WithoutCustom(), optimizer={"param_groups": PREDECESSOR[1:]})
    (said,) = [r for r in caplog.records if "takes no trainable parameter" in r.getMessage()]
    assert "'custom'" in said.getMessage()
    assert said.notice, "for the terminal"  # type: ignore[attr-defined]
    assert "lr/heads" in reporter.records[0].metrics
    assert "lr/custom" not in reporter.records[0].metrics


def test_a_group_of_no_part_lists_the_parts() -> None:
    """The schema refuses such a name; a task with parts of its own could still ask."""
    group = ParamGroup.model_construct(name="neck", lr=None, weight_decay=None, match=None)
    chosen = OptimizerConfig.model_construct(lr=1e-4, weight_decay=0.0, param_groups=(group,))
    with pytest.raises(ConfigError, match=r"'neck' takes no trainable parameter; there are heads \(2\): use one of"):
        parameter_groups(nn.Linear(1, 1), chosen, lambda _: "heads")


def test_the_rest_keeps_its_name() -> None:
    with pytest.raises(ConfigError, match="give the group another name"):
        groups_of(param_groups=[{"name": "default", "match": "*"}])


def test_frozen_parameters_are_in_no_group() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert [list(g.parameters) for g in parameter_groups(model, config(), lambda _: "heads")] == [["weight"]]
    model.weight.requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        parameter_groups(model, config(), lambda _: "heads")


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ({"type": "adamw", "betas": [0.8, 0.9]}, torch.optim.AdamW, {"betas": (0.8, 0.9)}),
        ({"type": "adam"}, torch.optim.Adam, {"betas": (0.9, 0.999)}),
        ({"type": "sgd", "momentum": 0.7}, torch.optim.SGD, {"momentum": 0.7, "nesterov": True}),
        ({"type": "sgd", "momentum": 0.0, "nesterov": False}, torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
    ],
)
def test_optimizers_take_their_settings(values: dict[str, Any], kind: type, expected: dict[str, Any]) -> None:
    chosen = config(lr=0.1, weight_decay=0.2, **values)
    optimizer = build_optimizer(parameter_groups(nn.Linear(1, 1), chosen, lambda _: "heads"), chosen)
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert {**expected, "lr": 0.1, "weight_decay": 0.2}.items() <= group.items()
    assert set(OPTIMIZERS) == {"adamw", "adam", "sgd"}


def test_an_unknown_optimizer_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="'lion' is not known; use one of adamw, adam, sgd"):
        build_optimizer([], config().model_copy(update={"type": "lion"}))


def stepped(model: nn.Module, chosen: OptimizerConfig) -> torch.optim.Optimizer:
    optimizer = build_optimizer(parameter_groups(model, chosen, LineTask().parameter_part), chosen)
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, i + 1.0)
    optimizer.step()
    return optimizer


def test_moments_follow_their_parameter_into_other_groups() -> None:
    before = stepped(LineTask().build_model(), config(param_groups=PREDECESSOR))
    model = LineTask().build_model()
    chosen = config(lr=7e-3, betas=[0.5, 0.6], param_groups=[{"name": "custom"}, {"name": "s", "match": "slope"}])
    after = build_optimizer(parameter_groups(model, chosen, LineTask().parameter_part), chosen)
    load_optimizer(after, before.state_dict())
    moments = {name: after.state[p]["exp_avg"] for name, p in model.named_parameters()}
    assert {name: round(float(m), 6) for name, m in moments.items()} == {"slope": 0.1, "offset": 0.2, "spare": 0.3}
    assert {(g["lr"], g["betas"]) for g in after.param_groups} == {(7e-3, (0.5, 0.6))}


def test_moments_of_another_kind_of_optimizer_are_refused() -> None:
    before = stepped(LineTask().build_model(), config())
    after = stepped(LineTask().build_model(), config(type="sgd"))
    with pytest.raises(CheckpointError, match=r"not a SGD; resume with the same optimizer\.type, or"):
        load_optimizer(after, before.state_dict())
