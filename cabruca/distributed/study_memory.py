"""Optuna's storage as its only writer may have it: every change goes into the file first, nothing is read back.

Optuna reads trials that are under way from its database again for every draw, as somebody else may have changed them.
The folder of a study has one driver at a time, which holds its lock: what the driver has written it knows.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


class RememberedStorage(BaseStorage):
    """Trials in memory over a storage that keeps them. Trials are replaced when they change, never changed in place.

    A new trial is a draft until `keep`, or until anything but its parameters is set: its parameters go into the file
    together, in one transaction instead of one each.

    Args:
        file: what keeps them. Nobody else writes there while this lives.
    """

    def __init__(self, file: BaseStorage) -> None:
        self._file = optuna.storages.get_storage(file)
        self._trials: dict[int, list[FrozenTrial]] = {}
        self._place: dict[int, tuple[int, int]] = {}
        self._file_ids: dict[int, int] = {}
        self._drafts: list[int] = []
        self._newest = 0
        for study in self._file.get_all_studies():
            self._of(study._study_id)

    def _of(self, study_id: int) -> list[FrozenTrial]:
        """All trials of a study in the order of their numbers, read when they are first asked for."""
        if study_id not in self._trials:
            self._trials[study_id] = self._file.get_all_trials(study_id, deepcopy=True)
            self._place |= {trial._trial_id: (study_id, trial.number) for trial in self._trials[study_id]}
            self._file_ids |= {trial._trial_id: trial._trial_id for trial in self._trials[study_id]}
            self._newest = max(self._place, default=0)
        return self._trials[study_id]

    def _change(self, trial_id: int, **fields: Any) -> None:
        trial = copy.copy(self._known(trial_id))
        for name, value in fields.items():
            setattr(trial, name, value)
        study_id, number = self._place[trial_id]
        self._trials[study_id][number] = trial

    def keep(self) -> None:
        """Write down the trials that are drafts."""
        while self._drafts:
            study_id, number = self._place[self._drafts[0]]
            self._file_ids[self._drafts[0]] = self._file.create_new_trial(study_id, self._trials[study_id][number])
            self._drafts.pop(0)

    def _kept(self, trial_id: int) -> int:
        """The trial's id in the file."""
        self._known(trial_id)
        self.keep()
        return self._file_ids[trial_id]

    # trials

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        self.keep()
        trials = self._of(study_id)
        fresh = optuna.trial.create_trial(state=TrialState.RUNNING) if template_trial is None else template_trial
        trial = copy.deepcopy(fresh)
        trial._trial_id, trial.number = self._newest + 1, len(trials)
        if template_trial is not None:
            self._file_ids[trial._trial_id] = self._file.create_new_trial(study_id, template_trial)
        else:
            self._drafts.append(trial._trial_id)
        self._newest = trial._trial_id
        self._place[trial._trial_id] = study_id, trial.number
        trials.append(trial)
        return int(trial._trial_id)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial, value = self._known(trial_id), distribution.to_external_repr(param_value_internal)
        if trial_id not in self._drafts:
            self._file.set_trial_param(self._kept(trial_id), param_name, param_value_internal, distribution)
        distributions = {**trial.distributions, param_name: distribution}
        self._change(trial_id, params={**trial.params, param_name: value}, distributions=distributions)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        if not self._file.set_trial_state_values(self._kept(trial_id), state, values):
            return False
        fields: dict[str, Any] = {"state": state} | ({} if values is None else {"values": values})
        if state == TrialState.RUNNING:
            fields["datetime_start"] = datetime.now()
        elif state.is_finished():
            fields["datetime_complete"] = datetime.now()
        self._change(trial_id, **fields)
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self._file.set_trial_intermediate_value(self._kept(trial_id), step, intermediate_value)
        known = self._known(trial_id).intermediate_values
        self._change(trial_id, intermediate_values={**known, step: intermediate_value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._file.set_trial_user_attr(self._kept(trial_id), key, value)
        self._change(trial_id, user_attrs={**self._known(trial_id).user_attrs, key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id not in self._drafts:  # what a sampler notes while it draws goes with the draft
            self._file.set_trial_system_attr(self._kept(trial_id), key, value)
        self._change(trial_id, system_attrs={**self._known(trial_id).system_attrs, key: value})

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return copy.deepcopy(self._known(trial_id))  # Optuna changes what it is given

    def _known(self, trial_id: int) -> FrozenTrial:
        if trial_id not in self._place:
            raise KeyError(trial_id)
        study_id, number = self._place[trial_id]
        return self._trials[study_id][number]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [trial for trial in self._of(study_id) if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        trials = self._of(study_id)
        if not 0 <= trial_number < len(trials):
            raise KeyError(trial_number)
        return int(trials[trial_number]._trial_id)

    # studies: seldom asked for

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self._file.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._file.delete_study(study_id)
        for trial in self._trials.pop(study_id, []):
            del self._place[trial._trial_id]
        self._drafts = [trial_id for trial_id in self._drafts if trial_id in self._place]

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._file.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._file.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._file.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._file.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._file.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._file.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._file.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        return self._file.get_all_studies()
