"""Where a run begins: fresh, further on in its own folder, or as a new stage with another run's weights.

==========================  =======================================  ============================================
--resume                    name (flag or configuration)             what happens
==========================  =======================================  ============================================
absent                      any, or none                             a new folder; one that holds a run is refused
auto                        needed                                   newest intact checkpoint of that run, or fresh
a checkpoint                none, or that run's own                  goes on in the run's folder
a checkpoint                another, or its own in a place given by  new stage: weights in, all else fresh
                            `--output-dir` that is not the run's
==========================  =======================================  ============================================

Configuration of a resumed run: checkpoint < file < flags. Mean and deviation of the input come with the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cabruca.config.load import config_from_dict, differences, merge
from cabruca.config.schema import Config, TrainingConfig
from cabruca.errors import CheckpointError, ConfigError, RunError
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.status import StatusFile, read_status
from cabruca.train import checkpoint
from cabruca.train.protocols import State, TrainResult
from cabruca.words import counted

_log = logging.getLogger("cabruca.tracking")

SHAPE_KEYS = (
    *("model.num_instance_classes", "model.num_semantic_classes", "model.backbone", "model.pretrained"),
    *("model.heads", "model.fpn_channels", "model.box_head_channels", "model.mask_head_layers"),
    *("model.anchor_sizes_px", "model.anchor_ratios", "data.bands"),
)
"""Keys that decide which tensors the model has; for the lists of anchors and bands, their lengths do."""

_LENGTH_ONLY = ("model.anchor_sizes_px", "model.anchor_ratios", "data.bands")
_NO_DIFFERENCE = ("experiment_name", "output_dir")


@dataclass(frozen=True)
class RunPlan:
    """What is going to happen, before anything is touched.

    Attributes:
        config: resolved, with the folder's name as `experiment_name` where that is known.
        run_dir: the folder to go on in; None: a new one is claimed.
        state: what the loop resumes: all of a checkpoint to go on, its weights and the stage's number to begin a
            stage, None to start fresh.
        notes: lines for people. finished: there is nothing left to do.
    """

    config: Config
    run_dir: RunDir | None = None
    state: State | None = None
    notes: list[str] = field(default_factory=list)
    finished: TrainResult | None = None


def plan_run(config: Config, resume: str | None, explicit: Mapping[str, Any] | None = None) -> RunPlan:
    """Decide by the table above; reads, but writes nothing.

    Args:
        config: from file and flags. `explicit`: dotted keys among them that were flags.
        resume: None, `auto`, or a checkpoint's path.

    Raises:
        ConfigError: `auto` without a name; a setting that changes the model's shape.
        CheckpointError: the checkpoint cannot be read.
        RunError: the checkpoint lies in no run folder and no name is given.
    """
    if resume is None:
        return RunPlan(config)
    if resume == "auto":
        return _plan_auto(config, explicit or {})
    path = Path(resume)
    state = checkpoint.read(path)
    owner = RunDir.of_checkpoint(path)
    name = config.experiment_name
    elsewhere = _elsewhere(owner, explicit or {})
    if owner is not None and elsewhere and name is None:
        raise RunError(
            f"--output-dir {elsewhere} is not where run {owner.path} lies; leave it out to go on there, or give "
            "--experiment-name to open a new stage"
        )
    if owner is not None and not elsewhere and name in (None, owner.name):
        return _plan_same(owner, path, state, config, explicit or {})
    if name is None:
        raise RunError(
            f"checkpoint {path} lies in no run folder (<run>/checkpoints/); give --experiment-name to open a new stage"
        )
    return _plan_stage(path, state, config, explicit or {})


def _elsewhere(owner: RunDir | None, explicit: Mapping[str, Any]) -> str | None:
    """The folder that a flag asks runs to be made in, where it is not the one that the run lies in."""
    asked = explicit.get("output_dir")
    if owner is None or asked is None or Path(asked).resolve() == owner.path.resolve().parent:
        return None
    return str(asked)


def _plan_auto(config: Config, explicit: Mapping[str, Any]) -> RunPlan:
    if config.experiment_name is None:
        raise ConfigError(
            "--resume auto finds the run by its name and there is none; give --experiment-name, or set experiment_name"
        )
    run_dir = RunDir(Path(config.output_dir) / config.experiment_name)
    path = checkpoint.newest_intact(run_dir.checkpoints) or _unvouched(run_dir)
    if path is not None:
        return _plan_same(run_dir, path, checkpoint.read(path), config, explicit)
    if not run_dir.holds_run:
        return RunPlan(config, notes=[f"--resume auto: no run at {run_dir.path}; starting fresh"])
    note = f"--resume auto: no intact checkpoint in {run_dir.checkpoints}; starting fresh"
    return RunPlan(config, run_dir=run_dir, notes=[note])


def _unvouched(run_dir: RunDir) -> Path | None:
    """The newest whole checkpoint that came without its .json, or None.

    Copied from elsewhere, or its run was killed between the two files of its first save: it is no reason to start over
    and overwrite it. What is torn does not pass `read`, which checks the sums inside the file.
    """
    alone = [p for p in run_dir.checkpoints.glob("*.pth") if not p.with_suffix(".json").exists()]
    for path in sorted(alone, key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            checkpoint.read(path)
        except CheckpointError:
            continue
        return path
    return None


def _plan_same(run_dir: RunDir, path: Path, state: State, config: Config, explicit: Mapping[str, Any]) -> RunPlan:
    merged, before = _merged(path, state, config, explicit)
    merged = merged.model_copy(update={"experiment_name": run_dir.name, "output_dir": str(run_dir.path.parent)})
    notes = [f"going on after epoch {state.get('epoch')}, step {state.get('step')}, from {path}"]
    plan = RunPlan(
        merged,
        run_dir=run_dir,
        state=state,
        notes=notes + _changes(before, merged),
    )
    return _finished(plan, before) or plan


def _plan_stage(path: Path, state: State, config: Config, explicit: Mapping[str, Any]) -> RunPlan:
    merged, before = _merged(path, state, config, explicit)
    stage = int(state.get("stage", 0)) + max(1, len(before.training.stages))
    notes = [
        f"stage {stage} '{merged.experiment_name}': weights of {path}; epochs, schedule and patience begin anew",
        *_changes(before, merged),
    ]
    return RunPlan(merged, state={"model": state["model"], "stage": stage}, notes=notes)


def _merged(path: Path, state: State, config: Config, explicit: Mapping[str, Any]) -> tuple[Config, Config]:
    stored = state.get("config")
    if not isinstance(stored, Mapping) or not isinstance(state.get("model"), Mapping):
        raise CheckpointError(f"checkpoint {path} holds no configuration or no weights; use another of the run")
    task = state.get("task") or {}
    before = with_statistics(config_from_dict(stored), task)
    merged = with_statistics(merge(stored, config, explicit), task)
    _refuse_other_shape(path, before, merged)
    return merged, before


def with_statistics(config: Config, task: Mapping[str, Any]) -> Config:
    """`config` with the input's mean and deviation of the checkpoint that the weights are from.

    What the weights have learnt to see must not shift because another data set was measured. Numbers that the
    configuration gives stay; other bands, or another scale, are measured anew.

    Args:
        task: `state()` of the checkpoint's task; one without an `input` specification changes nothing.
    """
    spec, data = task.get("input"), config.data
    if not isinstance(spec, Mapping) or list(spec.get("bands", ())) != list(data.bands):
        return config
    if data.scale not in (None, spec.get("scale")):
        return config
    given = {name: getattr(data, name) or spec.get(name) for name in ("mean", "std")}
    known = {name: tuple(float(v) for v in values) for name, values in given.items() if values}
    return config.model_copy(update={"data": data.model_copy(update=known)})


def _refuse_other_shape(path: Path, before: Config, now: Config) -> None:
    for key, (old, new) in differences(before, now).items():
        if key not in SHAPE_KEYS or (key in _LENGTH_ONLY and len(old) == len(new)):
            continue
        raise ConfigError(
            f"{key}: {_text(new)} changes the shape of the model, which was trained with {_text(old)} in {path}; "
            f"set it back, or begin a new run with --init-from"
        )


def _changes(before: Config, now: Config) -> list[str]:
    return [
        f"  {key}: {_text(old)} (checkpoint) -> {_text(new)}"
        for key, (old, new) in differences(before, now).items()
        if key not in _NO_DIFFERENCE
    ]


def _text(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _finished(plan: RunPlan, before: Config) -> RunPlan | None:
    """The plan of a run that has nothing left to do, else None."""
    assert plan.state is not None
    assert plan.run_dir is not None
    training = plan.config.training
    status = read_status(plan.run_dir.status) or {}
    state = plan.state
    if status.get("state") == "finished" and training.num_epochs <= before.training.num_epochs:
        state = _end_of(plan.run_dir) or state  # whichever of its checkpoints was given: this is what the run came to
    epochs, used = int(state["epoch"]), int(state.get("validations_without_improvement", 0))
    if epochs >= training.num_epochs:
        longer = "lengthen the last of training.stages" if training.stages else "raise --epochs"
        how, remedy = f"({counted(epochs, 'epoch')})", f"{longer} to train on"
    elif 0 < training.early_stopping_patience <= used and epochs > _last_stage_begins(training):
        how = f"(stopped early after {counted(epochs, 'epoch')}: {counted(used, 'validation')} without improvement)"
        remedy = (
            f"to train on, give --set training.early_stopping_patience={2 * used} (above {used}; 0: never stop early)"
        )
    else:
        return None
    if epochs >= training.num_epochs and 0 < training.early_stopping_patience <= used:
        remedy += f" and training.early_stopping_patience above {used}"
    message = (
        f"run {plan.run_dir.path} is finished {how}; {remedy}, or give another --experiment-name to open a new stage"
    )
    best = plan.state.get("best") or {}
    result = TrainResult("finished", epochs, int(state["step"]), best.get("value"), best.get("epoch"), {}, message)
    return RunPlan(plan.config, run_dir=plan.run_dir, finished=result)


def _last_stage_begins(training: TrainingConfig) -> int:
    """Epochs completed when the last stage begins, which alone may be stopped early; below any without stages."""
    return sum(stage.epochs for stage in training.stages[:-1]) if training.stages else -1


def _end_of(run_dir: RunDir) -> State | None:
    """The state of the run's last checkpoint; None where it is not intact."""
    return checkpoint.read(run_dir.latest) if checkpoint.is_intact(run_dir.latest) else None


def mark_finished(run_dir: RunDir, result: TrainResult) -> None:
    """Put the status right of a run that was killed between its last checkpoint and its last status."""
    status = read_status(run_dir.status) or {}
    if status.get("state") != "finished":
        StatusFile(run_dir.status).set("finished", epoch=result.epochs, message=result.message)
