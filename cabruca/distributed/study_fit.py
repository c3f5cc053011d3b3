"""Does a study's trial fit the cluster? Looked at before the first one is asked for, so that none waits in silence."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from cabruca.config.study import Study, trial_config
from cabruca.distributed.preflight import Resources, teams_that_fit, workers_that_fit
from cabruca.distributed.team import asked_by, team_of
from cabruca.errors import ConfigError
from cabruca.tracking.study_dir import StudyDir
from cabruca.train.protocols import NOTICE

_log = logging.getLogger("cabruca.distributed")


def check_trials_fit(study: Study, study_dir: StudyDir, nodes: Sequence[Resources]) -> None:
    """Compare one trial, then `max_concurrent_trials`, with the cluster; fewer at a time than asked is a notice.

    Args:
        nodes: all resources of every node, free or not.

    Raises:
        ConfigError: not even one trial fits; says what there is.
    """
    at_once = _at_once(study, study_dir, nodes)
    wanted = min(study.config.max_concurrent_trials, study.config.num_trials)
    if at_once == 0:
        raise ConfigError(_refusal(study, nodes))
    if at_once < wanted:
        text = "max_concurrent_trials %d: the cluster has room for %d trial%s at a time; the others wait their turn"
        _log.info(text, wanted, at_once, "" if at_once == 1 else "s", extra=NOTICE)
    _tell_of_gpus(study, nodes)


def _tell_of_gpus(study: Study, nodes: Sequence[Resources]) -> None:
    """A study that sets no GPU aside, where there are some and its device is `auto`: what its trials do."""
    gpus = sum(node.get("GPU", 0.0) for node in nodes)
    if not gpus or study.config.resources_per_trial.gpu or study.base.device != "auto":
        return
    alone = study.config.workers_per_trial == 1  # as a run in one process: `auto` takes the first GPU it sees
    does = "trials share the first GPU of their node" if alone else "trials train on CPUs"
    text = "the cluster has %g GPU and resources_per_trial sets none aside, so %s; write gpu: 1, or device: cpu"
    _log.info(text, gpus, does, extra=NOTICE)


def _at_once(study: Study, study_dir: StudyDir, nodes: Sequence[Resources]) -> int:
    """Trials that fit beside one another."""
    if study.config.workers_per_trial == 1:
        return sum(workers_that_fit(_own(study), nodes))
    config = trial_config(study, {}, number=0, folder=study_dir.trials.absolute())
    return teams_that_fit(asked_by(team_of(config, nodes), config), nodes)


def _own(study: Study) -> dict[str, float]:
    """What one process that trains takes."""
    own = study.config.resources_per_trial
    return {"CPU": own.cpu, **({"GPU": own.gpu} if own.gpu else {})}


def _refusal(study: Study, nodes: Sequence[Resources]) -> str:
    own, workers = _own(study), study.config.workers_per_trial
    asked = " and ".join(f"{name.lower()} {need:g}" for name, need in own.items())
    there = "; ".join(" + ".join(f"{node.get(name, 0.0):g} {name}" for name in own) for node in nodes[:4])
    more = f" and {len(nodes) - 4} more nodes" if len(nodes) > 4 else ""
    which = f"{workers} workers_per_trial x resources_per_trial" if workers > 1 else "resources_per_trial"
    lacking = [name for name, need in own.items() if all(node.get(name, 0.0) < need for node in nodes)]
    remedy = [_set(name, max((node.get(name, 0.0) for node in nodes), default=0.0)) for name in lacking]
    if not remedy:
        remedy = [f"lower {'workers_per_trial or ' if workers > 1 else ''}resources_per_trial"]
    return f"{which} ({asked}) fits nowhere: there is {there or 'no node'}{more}; {', '.join(remedy)}, or add nodes"


def _set(name: str, there: float) -> str:
    return f"--set study.resources_per_trial.{name.lower()}={there:g}"
