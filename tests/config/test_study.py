"""A study's file: what it gives, what its trials get, what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_files import StudyFiles, refusal

from cabruca.config.load import config_from_dict, load_config, to_yaml
from cabruca.config.study import best_config, load_study, trial_config
from cabruca.config.views import differences


@pytest.fixture
def make(tmp_path: Path) -> StudyFiles:
    """Writes and loads studies."""
    return StudyFiles(tmp_path)


def test_metric_and_mode_are_the_configurations_where_none_are_given(make: StudyFiles) -> None:
    study = make()
    assert (study.metrics, study.directions) == (("val/mAP_50",), ("maximize",))
    falling = make(base={"training": {"monitor_metric": "val/total_loss", "minimize_metric": True}})
    assert (falling.metrics, falling.directions) == (("val/total_loss",), ("minimize",))


def test_several_metrics(make: StudyFiles) -> None:
    study = make(metric=["val/mAP_50", "time/epoch_s"], mode=["max", "min"], scheduler={"type": "none"})
    assert study.metrics == ("val/mAP_50", "time/epoch_s")
    assert study.directions == ("maximize", "minimize")


def test_a_trial_is_the_base_but_for_its_parameters_and_what_a_study_decides(make: StudyFiles, tmp_path: Path) -> None:
    study = make()
    config = trial_config(study, {"optimizer.lr": 1e-3}, number=7, folder=tmp_path / "trials")
    assert {key: new for key, (_, new) in differences(study.base, config).items()} == {
        "experiment_name": "trial_0007",
        "output_dir": str(tmp_path / "trials"),
        "optimizer.lr": 1e-3,
        "optimizer.param_groups": config.optimizer.param_groups,
        "scheduler.T_max": None,  # that is num_epochs
        "training.num_epochs": 9,
        "training.save_frequency": 0,
        "validation.frequency": 1,
        "validation.save_predictions": False,
        "data.test_annotations": "",
    }
    assert config.optimizer.param_groups[0].lr == 1e-4  # keeps its proportion, as under --lr
    assert config.training.seed == 4


def test_no_trial_meets_the_test_set(make: StudyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cabruca.held_out import wanted

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/annotations").mkdir(parents=True)
    (tmp_path / "data/annotations/test.json").write_text("{}")
    study = make(base={"data": {}})
    assert wanted(best_config(study, {}))
    assert not wanted(trial_config(study, {}, number=0, folder=tmp_path))


def test_what_a_study_sets_and_searches_is_stronger_than_what_it_decides(make: StudyFiles, tmp_path: Path) -> None:
    study = make(set={"validation.frequency": 3, "training.save_frequency": 2, "optimizer.lr": 1e-3})
    assert study.base.optimizer.param_groups[0].lr == 1e-4
    config = trial_config(study, {"scheduler.T_max": 6}, number=0, folder=tmp_path)
    assert (config.validation.frequency, config.training.save_frequency, config.scheduler.T_max) == (3, 2, 6)


def test_workers_of_a_trial_get_the_resources_of_the_study(make: StudyFiles, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"workers_per_trial": 2, "resources_per_trial": {"cpu": 4, "gpu": 0.5}}
    own = trial_config(make(**keys), {}, number=0, folder=tmp_path).distributed
    assert (own.num_workers, own.use_gpu, own.resources_per_worker) == (2, True, {"CPU": 4.0, "GPU": 0.5})
    plain = trial_config(make(workers_per_trial=2), {}, number=0, folder=tmp_path).distributed
    assert (plain.use_gpu, plain.resources_per_worker) == (False, {"CPU": 1.0})
    said = {"set": {"distributed.resources_per_worker": {"CPU": 3.0}}}
    assert trial_config(make(**keys, **said), {}, number=0, folder=tmp_path).distributed.resources_per_worker == {
        "CPU": 3.0
    }
    best = best_config(make(**keys), {}).distributed
    assert (best.num_workers, best.use_gpu, best.resources_per_worker) == (2, "auto", {})


def test_a_flag_counts_as_set_also_after_a_resume(make: StudyFiles, tmp_path: Path) -> None:
    study = make({"validation.frequency": 2, "training.seed": 5})
    (tmp_path / "stored.yaml").write_text(to_yaml(study.base.to_dict()))
    (tmp_path / "study.yaml").write_text(to_yaml(study.config.model_dump(mode="json")))
    for one in (study, load_study(tmp_path / "study.yaml", base=tmp_path / "stored.yaml")):
        config = trial_config(one, {}, number=0, folder=tmp_path)
        assert (config.validation.frequency, config.training.seed) == (2, 5)


def test_flags_are_stronger_than_set_and_reach_study_and_base(make: StudyFiles) -> None:
    flags = {"study.num_trials": 3, "study.sampler.seed": 9, "training.seed": 8, "data.batch_size": 2}
    study = make(flags, set={"training.seed": 7}, sampler={"type": "random"})
    assert (study.config.num_trials, study.config.sampler.seed, study.config.sampler.type) == (3, 9, "random")
    assert (study.base.training.seed, study.base.data.batch_size) == (8, 2)


def test_the_best_configuration_is_the_trials_in_a_folder_of_its_own(make: StudyFiles, tmp_path: Path) -> None:
    study = make(metric="val/mAP", mode="max", workers_per_trial=2)
    params = {"optimizer.lr": 1e-3}
    trial, best = trial_config(study, params, number=7, folder=tmp_path), best_config(study, params)
    assert differences(trial, best).keys() == {
        "experiment_name",
        "output_dir",
        "training.save_frequency",
        "validation.save_predictions",
        "data.test_annotations",
        "distributed.use_gpu",
        "distributed.resources_per_worker",
    }
    assert (best.experiment_name, best.output_dir) == (None, "somewhere")
    assert (best.training.monitor_metric, best.distributed.num_workers) == ("val/mAP", 2)
    (tmp_path / "best.yaml").write_text(to_yaml(best))
    assert load_config(tmp_path / "best.yaml") == best


def test_stages_of_the_base_give_the_epochs(make: StudyFiles, tmp_path: Path) -> None:
    stages = {"training": {"stages": [{"tile_size": 256, "epochs": 2}, {"tile_size": 512, "epochs": 3}]}}
    study = make(base=stages, max_epochs="absent", search_space={"optimizer.lr": {"uniform": [1e-4, 1e-3]}})
    config = trial_config(study, {}, number=0, folder=tmp_path)
    assert (study.max_epochs, config.training.num_epochs, len(config.training.stages)) == (5, 5, 2)
    assert "max_epochs 9 contradicts training.stages, whose epochs make 5" in refusal(make, base=stages)
    assert make(base=stages, set={"training.stages": []}).max_epochs == 9


def test_the_base_is_looked_for_here_and_beside_the_study(
    make: StudyFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert make().base.training.seed == 4
    (here / "base.yaml").write_text("training: {seed: 5}\n")
    assert make().base.training.seed == 5
    assert "config: nowhere.yaml is neither in the working directory nor beside" in refusal(make, config="nowhere.yaml")


def test_a_stored_base_is_not_set_again(make: StudyFiles, tmp_path: Path) -> None:
    study = make({"optimizer.lr": 2e-3}, set={"optimizer.lr": 1e-3})
    (tmp_path / "stored.yaml").write_text(to_yaml(study.base.to_dict()))
    again = load_study(tmp_path / "study.yaml", base=tmp_path / "stored.yaml")
    assert again.base == study.base
    assert again.base.optimizer.lr == 2e-3


REFUSED = [
    ({"name": "absent"}, "study.yaml: name is missing; a study needs a name"),
    ({"name": "a b"}, 'name: "a b" is not a folder name'),
    ({"search_space": "absent"}, "search_space is missing; a study needs a search_space"),
    ({"num_trial": 3}, "num_trial is not a known key; did you mean 'num_trials'?"),
    ({"sampler": {"typ": "tpe"}}, "sampler.typ is not a known key; did you mean 'type'?"),
    ({"sampler": {"type": "tep"}}, "is not one of tpe, gp, random, grid, nsga2; did you mean 'tpe'?"),
    ({"num_trials": 0}, "num_trials: 0 is not above 0; the default is 20"),
    ({"scheduler": {"reduction_factor": 1.0}}, "scheduler.reduction_factor: 1.0 is not above 1.0"),
    ({"time_budget": "2x"}, "time_budget: '2x' is no length of time; write 2h, 90m"),
    ({"disk_budget": "20XB"}, "disk_budget: '20XB' is no size; write 20GB"),
    ({"metric": "mAP_50", "mode": "max"}, "metric: mAP_50 is no full name; did you mean 'val/mAP_50'?"),
    ({"metric": "val/mAP"}, "mode is missing: val/mAP is not the configuration's monitor, val/mAP_50; write mode"),
    ({"metric": ["val/a", "val/a"], "mode": ["max", "max"]}, "metric names one twice: val/a, val/a"),
    ({"metric": ["val/a", "val/b"]}, "mode is missing for 2 metrics; write max or min for each"),
    ({"metric": ["val/a", "val/b"], "mode": "max"}, "mode has 1 entries for 2 metrics"),
    ({"metric": []}, "metric names nothing"),
    (
        {"metric": ["val/a", "val/b"], "mode": ["max", "min"]},
        "scheduler: type: asha stops trials by one metric and there are 2; write scheduler: {type: none}",
    ),
    (
        {"scheduler": {"type": "pbt"}, "workers_per_trial": 2},
        "type: pbt pauses trials, which needs workers_per_trial: 1",
    ),
    (
        {"scheduler": {"grace_period": 10}},
        "grace_period 10 is above max_epochs 9, so nothing would be stopped; write 3",
    ),
    (
        {"scheduler": {"grace_period": 400}, "max_epochs": "absent"},
        "grace_period 400 is above the base configuration's training.num_epochs",
    ),
    (
        {"scheduler": {"type": "pbt", "perturbation_interval": 9}},
        "perturbation_interval 9 is not below max_epochs 9, so no trial would take over weights; write less",
    ),
    ({"set": {"device": "cuda"}}, "device: cuda and resources_per_trial: gpu 0 contradict each other; write gpu: 1"),
    ({"set": {"device": "cpu"}, "resources_per_trial": {"gpu": 1}}, "device: cpu and resources_per_trial: gpu 1"),
    ({"workers_per_trial": 3}, "data.batch_size 4 does not divide over workers_per_trial 3; use 6"),
    (
        {"workers_per_trial": 2, "search_space": {"data.batch_size": {"choice": [2, 5]}}},
        "data.batch_size 5 does not divide over workers_per_trial 2; use 6",
    ),
    ({"set": {"data.tile_siz": 3}}, "data.tile_siz is not a known key; did you mean 'tile_size'?"),
    ({"set": {"training.num_epochs": 3}}, "set: training.num_epochs contradicts max_epochs 9"),
    ({"search_space": {"optimizer.lrr": {"uniform": [0, 1]}}}, "search_space.optimizer.lrr is not a known key"),
    ({"points_to_evaluate": [{"optimizer.lr": 1}]}, "points_to_evaluate[0]: optimizer.lr: 1 is not in loguniform"),
    ({"num_trials": 1, "points_to_evaluate": [{}, {}]}, "points_to_evaluate has 2 points for num_trials 1"),
    ({"sampler": {"type": "grid"}}, "search_space.optimizer.lr: loguniform has no list of values"),
    (
        {"sampler": {"type": "grid"}, "search_space": {"scheduler.T_max": {"choice": [3, 6]}}},
        "num_trials 20 is above the 2 points of the grid; lower it",
    ),
    (
        {"sampler": {"type": "grid"}, "points_to_evaluate": [{"optimizer.lr": 1e-3}]},
        "points_to_evaluate[0]: a grid draws nothing, so scheduler.T_max must stand in the point",
    ),
    (
        {
            "search_space": {"data.tile_size": {"choice": [256, 512]}, "data.overlap": {"choice": [64, 256]}},
            "points_to_evaluate": [{"data.tile_size": 256, "data.overlap": 256}],
        },
        "points_to_evaluate[0]: data.overlap 256 is not smaller than tile_size 256",
    ),
]


@pytest.mark.parametrize(("keys", "line"), REFUSED, ids=[line[:45] for _, line in REFUSED])
def test_a_mistake_is_one_line(make: StudyFiles, keys: dict[str, Any], line: str) -> None:
    assert line in refusal(make, **keys)


def test_parameters_that_do_not_fit_together_are_refused(make: StudyFiles, tmp_path: Path) -> None:
    study = make(search_space={"data.tile_size": {"choice": [256, 512]}, "data.overlap": {"choice": [64, 256]}})
    line = refusal(trial_config, study, {"data.tile_size": 256, "data.overlap": 256}, number=0, folder=tmp_path)
    assert line.startswith("data.overlap 256 is not smaller than tile_size 256")


def test_the_base_of_a_study_is_a_whole_configuration(make: StudyFiles) -> None:
    assert config_from_dict(make().base.to_dict()) == make().base
