"""Room for the workers of a study's trials: they share a cluster, and a trial waits for what another gives back.

Ray Tune knows nothing of the workers of a trial, so it cannot let trials wait for them as it does for its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

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
    while not fits(asked, free_resources(ray)):
        reason = leave()
        if reason is not None:
            return reason
        time.sleep(LOOK_S)
    return None
