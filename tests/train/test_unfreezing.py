"""Gradual unfreezing: frozen until its epoch, then learning like anything that begins; nothing else is disturbed."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from line_run import Watcher, go
from line_task import LineTask, Points, line_config
from resuming import assert_stops_change_nothing
from torch import nn

from cabruca.config.schema import Unfreeze
from cabruca.errors import ConfigError
from cabruca.runtime import Runtime
from cabruca.train.batching import epoch_order
from cabruca.train.ready import make_ready
from cabruca.train.unfreezing import Thaw

LATE_SLOPE = [{"epoch": 2, "part": "backbone"}]


class Taught(LineTask):
    """`spare`, too, learns."""

    def losses(self, model: Any, batch: Points) -> Any:
        losses = super().losses(model, batch)
        return type(losses)(losses.total + model.spare**2, losses.parts)


def weights(reporter: Any, name: str) -> list[float]:
    """The value of a weight after each epoch."""
    return [float(state["model"][name]) for _, state, *_ in reporter.saves]


def test_a_frozen_part_stays_and_then_learns() -> None:
    _, reporter = go(training={"unfreeze": LATE_SLOPE, "num_epochs": 4}, optimizer={"weight_decay": 0.5})
    slope = weights(reporter, "slope")
    assert slope[:2] == pytest.approx([0.1, 0.1])
    assert slope[2] != slope[1]
    assert slope[3] != slope[2]
    assert len(set(weights(reporter, "offset"))) == 4


def test_it_is_the_hand_written_loop_with_an_optimizer_that_begins_later() -> None:
    """The thawed part gets moments of its own from step 0; those of what learnt before go on."""
    sections = {
        "optimizer": {"lr": 0.05, "weight_decay": 0.1},
        "training": {"unfreeze": LATE_SLOPE, "precision": "fp64"},
    }
    _, reporter = go(Taught(), **sections)
    task = Taught()
    model = task.build_model().double().train()
    early = torch.optim.AdamW([model.offset, model.spare], lr=0.05, weight_decay=0.1)  # type: ignore[list-item]
    late = torch.optim.AdamW([model.slope], lr=0.05, weight_decay=0.1)  # type: ignore[list-item]
    for epoch in range(4):
        order = epoch_order(0, epoch, 13)
        for i in range(0, 13, 4):
            batch = next(iter(task.train_batches(epoch, [order[i : i + 4]], Runtime.single())))
            model.zero_grad()
            task.losses(model, batch.to("cpu", dtype=torch.float64)).total.mean().backward()
            early.step()
            if epoch >= 2:
                late.step()
    torch.testing.assert_close(reporter.state["model"], dict(model.state_dict()), rtol=1e-12, atol=1e-12)
    steps = {name: int(s["step"]) for name, s in zip(("slope", "offset", "spare"), moments(reporter), strict=True)}
    assert steps == {"slope": 8, "offset": 16, "spare": 16}


def moments(reporter: Any) -> list[dict[str, Any]]:
    state = reporter.state["optimizer"]
    return [state["state"][index] for group in state["param_groups"] for index in group["params"]]


@pytest.mark.parametrize("scheduler", ["none", "cosine", "cosine_warm_restarts", "exponential", "onecycle", "plateau"])
def test_a_thawed_group_is_where_the_schedule_is(scheduler: str) -> None:
    """Its rate is not told while it is frozen, and afterwards the one that it has in a run that froze nothing."""
    groups = {"lr": 0.05, "param_groups": [{"name": "backbone", "lr": 0.01}]}
    sections: dict[str, Any] = {"scheduler": {"type": scheduler, "patience": 0, "T_0": 3}, "optimizer": groups}
    task = LineTask(metrics=lambda epoch: {"total_loss": float(epoch)})  # never better: the plateau falls
    _, frozen = go(task, training={"unfreeze": LATE_SLOPE, "log_interval": 1}, **sections)
    _, free = go(task, training={"log_interval": 1}, **sections)
    rates = [[r.metrics.get("lr/backbone") for r in reporter.steps] for reporter in (frozen, free)]
    assert rates[0] == [None] * 8 + rates[1][8:]
    assert [r.metrics["lr/default"] for r in frozen.steps] == [r.metrics["lr/default"] for r in free.steps]
    assert ("lr/backbone" in frozen.records[1].metrics, "lr/backbone" in frozen.records[2].metrics) == (False, True)


def test_a_stop_anywhere_changes_nothing() -> None:
    config = line_config(
        data={"batch_size": 2},
        optimizer={"type": "adamw", "param_groups": [{"name": "backbone", "lr": 0.01}]},
        scheduler={"type": "plateau", "patience": 0, "warmup_steps": 3},
        training={
            "unfreeze": [{"epoch": 1, "part": "backbone"}, {"epoch": 3, "part": "sp*"}],
            "gradient_accumulation_steps": 2,
            "minimize_metric": False,
            "gradient_clip": 1.0,
        },
    )
    whole = assert_stops_change_nothing(config, lambda: Taught(dropout=0.3), steps=range(1, 17), epochs=range(1, 4))
    assert [int(s["step"]) for s in moments(whole)] == [12, 16, 4]


def test_stages_and_thaws_go_together() -> None:
    stages = [{"tile_size": 96, "epochs": 2}, {"tile_size": 128, "epochs": 2, "lr": 0.01}]
    config = line_config(training={"stages": stages, "unfreeze": [{"epoch": 3, "part": "backbone"}]})
    whole = assert_stops_change_nothing(config, Taught, steps=range(1, 17), epochs=range(1, 4))
    assert [int(s["step"]) for s in moments(whole)] == [4, 8, 8]  # epochs count over the whole run


def test_people_are_told_what_is_frozen_and_when_it_thaws(caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher()
    unfreeze = [*LATE_SLOPE, {"epoch": 9, "part": "spare"}]
    with caplog.at_level(logging.INFO, "cabruca"):
        go(callbacks=[watcher], training={"unfreeze": unfreeze})
    assert [r.getMessage() for r in caplog.records if getattr(r, "notice", False)] == [
        "frozen at first: backbone (until epoch 2), spare (until epoch 9)",
        "training.unfreeze: 'spare' begins to learn after epoch 9, and the run has 4: it stays frozen",
        "epoch 3: backbone begins to learn",
    ]
    assert watcher.seen[0][1].parameters == 1


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
        self.head = nn.Linear(1, 1)
        for p in self.backbone[1].parameters():
            p.requires_grad_(False)


def part(name: str) -> str:
    return "backbone" if name.startswith("backbone") else "heads"


def learning(thaw: Thaw, model: nn.Module, epoch: int) -> list[str]:
    thaw.apply(epoch)
    return [name for name, p in model.named_parameters() if p.requires_grad]


def test_the_earliest_entry_of_a_parameter_counts_and_batch_norm_stays_frozen() -> None:
    model = Small()
    entries = [Unfreeze(epoch=5, part="backbone"), Unfreeze(epoch=2, part="*.0.bias"), Unfreeze(epoch=0, part="heads")]
    thaw = Thaw(model, entries, part)
    head = ["head.weight", "head.bias"]
    assert learning(thaw, model, 0) == head
    assert learning(thaw, model, 2) == ["backbone.0.bias", *head]
    assert learning(thaw, model, 5) == ["backbone.0.weight", "backbone.0.bias", *head]
    assert learning(thaw, model, 0) == head  # a task that is asked for an earlier epoch again


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (
            ["backbon"],
            r"part 'backbon' names no parameter of the network; did you mean 'backbone'\?; use one of backbone",
        ),
        (["custom"], r"part 'custom' names no parameter of the network; use one of backbone, heads, or a glob over"),
        (
            ["backbone.1.*"],
            r"part 'backbone\.1\.\*' names only parameters that never learn \(frozen batch norm\); widen",
        ),
        (["backbone", "heads"], r"freezes every part of the network at epoch 0, so nothing would learn; leave a part"),
    ],
)
def test_what_cannot_be_meant_is_refused(entries: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Thaw(Small(), [Unfreeze(epoch=1, part=entry) for entry in entries], part)


def test_an_entry_that_others_make_empty_is_refused() -> None:
    """All of it learns earlier: that it "begins to learn" after epoch 8, or is frozen until then, would be untrue."""
    entries = [Unfreeze(epoch=2, part="backbone"), Unfreeze(epoch=8, part="backbone.0.weight")]
    with pytest.raises(ConfigError, match=r"part 'backbone\.0\.weight' at epoch 8 has no effect.*by epoch 2; remove"):
        Thaw(Small(), entries, part)
    covered = [Unfreeze(epoch=n, part=f"backbone.0.{name}") for n, name in ((1, "weight"), (3, "bias"))]
    with pytest.raises(ConfigError, match=r"part 'backbone' at epoch 4 has no effect.*by epoch 3"):
        Thaw(Small(), [*covered, Unfreeze(epoch=4, part="backbone")], part)


def test_it_is_refused_before_a_run_claims_its_folder() -> None:
    config = line_config(training={"unfreeze": [{"epoch": 1, "part": "nek*"}]})
    with pytest.raises(ConfigError, match="'nek\\*' names no parameter"):
        make_ready(config, LineTask())


def test_a_group_over_a_frozen_part_is_no_error() -> None:
    groups = {"param_groups": [{"name": "late", "match": "slope", "lr": 0.01}]}
    _, reporter = go(optimizer=groups, training={"unfreeze": LATE_SLOPE})
    assert reporter.records[-1].metrics["lr/late"] == 0.01
