"""Room for the workers of a study's trials: they share a cluster, and a trial waits for what another gives back.

Ray Tune knows nothing of the workers of a trial, so it cannot let trials wait for them as it does for its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cabruca.config.schema import Config
from cabruca.config.study import Study, trial_config
from cabruca.distributed.cluster import all_resources, free_resources
from cabruca.distributed.preflight import check_fit, fits, teams_that_fit
from cabruca.distributed.team import asked_by, team_of
from cabruca.tracking.study_dir import StudyDir

LOOK_S = 0.2
"""Seconds between looks at what is free."""


def trials_at_once(study: Study, study_dir: StudyDir) -> int:
    """`max_concurrent_trials`, or less: as many as have room for their workers beside one another; at least 1, because
    a trial for which there is never room says so when it begins."""
    wanted = study.config.max_concurrent_trials
    if study.config.workers_per_trial == 1:
        return wanted  # Ray Tune sees what they take
    import ray

    everything = all_resources(ray)
    config = trial_config(study, {}, number=0, folder=study_dir.trials.absolute())
    return min(wanted, max(1, teams_that_fit(asked_by(team_of(config, everything), config), everything)))


def wait_for_room(config: Config, leave: Callable[[], str | None]) -> str | None:
    """Wait until the run's workers fit what is free.

    Args:
        leave: looked at while waiting; a reason to wait no longer, or None.

    Returns:
        That reason; None: there is room.

    Raises:
        ConfigError: the workers would not fit if all were free.
    """
    import ray

    everything = all_resources(ray)
    asked = asked_by(team_of(config, everything), config)
    check_fit(asked, everything)
    take_from_the_dead()
    while not fits(asked, free_resources(ray)):
        reason = leave()
        if reason is not None:
            return reason
        time.sleep(LOOK_S)
        take_from_the_dead()
    return None


def take_from_the_dead() -> int:
    """Free what the workers of trials whose processes were killed had set aside; how many such there were.

    Ray gives a placement group back when who made it ends in order, or with the whole job. Ray Train's controller,
    which makes them, dies with the trial's process; its own remedy asks the dashboard, which may not be there.
    """
    import ray
    from ray.core.generated import gcs_pb2
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    untyped: Any = ray
    table: Any = gcs_pb2.PlacementGroupTableData  # type: ignore[attr-defined]
    state, job = untyped._private.state.state, untyped.get_runtime_context().get_job_id()
    found = 0
    for raw in state._connect_and_get_accessor().get_placement_group_table():
        group = table.FromString(raw)
        gone = group.state == table.REMOVED or group.is_detached or not group.creator_actor_id
        if gone or group.creator_job_id.hex() != job:
            continue
        if state.actor_table(group.creator_actor_id.hex()).get("State") == "DEAD":
            remove_placement_group(PlacementGroup(untyped.PlacementGroupID(group.placement_group_id)))
            found += 1
    return found
