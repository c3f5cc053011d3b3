"""Studies as the command line asks for them: begun, gone on with, lengthened, repeated.

What is decided here is whether that may be done at all; `distributed.study` does it, and only there Ray is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cabruca.commands import command
from cabruca.config.study import Study, load_study
from cabruca.config.study_change import check_going_on, check_unmasked
from cabruca.config.study_trial import KEPT
from cabruca.errors import ConfigError, RunError
from cabruca.study_report import write_report
from cabruca.tracking.files import to_json
from cabruca.tracking.secrets import hide
from cabruca.tracking.study_dir import StudyDir, find_study
from cabruca.tracking.study_events import read
from cabruca.tracking.study_progress import study_progress_of
from cabruca.tracking.study_words import TIME_IS_UP, winner_command

if TYPE_CHECKING:
    from cabruca.distributed.repeat import Repeats
    from cabruca.distributed.study import StudyResult


def begin(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    **options: Any,
) -> StudyResult:
    """Run the study in a file.

    Args:
        overrides: dotted keys of the base configuration, and `study.*` of the study.
        resume: go on with it where it has been begun, begin it where it has not. retry_failed: failed trials again.
        options: `quiet`, `json`, `watchers`, `trial`; `closes`: say at the end where everything is.

    Raises:
        CabrucaError: one line: what is wrong with the file, or that the study is there already.
    """
    study = load_study(path, overrides)
    folder = StudyDir.of(study)
    _look_into_storage(study, folder, resume=resume or retry_failed)
    if not folder.holds_study or not folder.was_asked:
        return _run(study, folder, retry_failed=False, **options)
    if not (resume or retry_failed):
        raise RunError(
            f"study {folder.path} is there already; go on with it (--resume), lengthen it "
            f"({command('tune', 'extend', folder.path, '--trials', '+10')}), or give this one another name"
        )
    check_going_on(folder.load(), study)
    return _run(study, folder, retry_failed=retry_failed, **options)


def go_on(
    name: str,
    output_dir: str | Path = "outputs",
    overrides: Mapping[str, Any] | None = None,
    *,
    retry_failed: bool = False,
    **options: Any,
) -> StudyResult:
    """Go on with a study: finished trials stay, unfinished ones resume from their checkpoints.

    Raises:
        CabrucaError: there is no such study; an override that would change what its trials learn.
    """
    folder = find_study(name, output_dir)
    before = _newest(folder)
    study = folder.load(dict(overrides or {}))
    if folder.was_asked:
        check_going_on(before, study)
    check_unmasked(study)
    return _run(study, folder, retry_failed=retry_failed, **options)


def extend(
    name: str,
    output_dir: str | Path = "outputs",
    overrides: Mapping[str, Any] | None = None,
    *,
    trials: str,
    study_file: str | Path | None = None,
    **options: Any,
) -> StudyResult:
    """Give a study more trials, and another search space where a file says so; also when it has finished.

    Args:
        trials: `+20`: so many more; `60`: so many in all.
        study_file: the study's file with a wider search space; the base configuration stays the stored one.

    Raises:
        CabrucaError: there is no such study; no more trials than there are; a file that changes more than the space.
    """
    folder = find_study(name, output_dir)
    before = _newest(folder)
    count = _lengthened(trials, before, folder)
    given = {**(overrides or {}), "study.num_trials": count}
    study = folder.load(given) if study_file is None else load_study(study_file, given, base=folder.base_yaml)
    kept = {key: value for key, value in before.config.set.items() if key in KEPT}  # by a flag, maybe: in no file
    study = replace(study, config=study.config.model_copy(update={"set": {**kept, **study.config.set}}))
    if study.config.set != before.config.set:  # the stored base has been set already
        raise ConfigError(f"{study_file} has another `set` than study {folder.name} was begun with; set it back")
    check_going_on(before, study)
    check_unmasked(study)
    return _run(study, folder, retry_failed=False, **options)


def _newest(folder: StudyDir) -> Study:
    """The study as it was begun or last extended, here or in `distributed.storage_path`."""
    study = folder.load()
    _look_into_storage(study, folder, resume=True)
    return folder.load() if study.base.distributed.storage_path is not None else study


def _look_into_storage(study: Study, folder: StudyDir, *, resume: bool) -> None:
    """Fetch a study that is further on in `distributed.storage_path`; see `distributed.study_mirror`."""
    if study.base.distributed.storage_path is not None:
        from cabruca.distributed.study_mirror import look_into_storage

        look_into_storage(study, folder, resume=resume)


def _lengthened(trials: str, study: Study, folder: StudyDir) -> int:
    """Number of trials in all after an extension."""
    text, asked = trials.strip(), study.config.num_trials
    digits = text.removeprefix("+")
    if not digits.isdigit() or int(digits) < 1:
        raise ConfigError(f"--trials {trials} is not a number of trials; write +20 for 20 more, or 60 for 60 in all")
    count = asked + int(digits) if text.startswith("+") else int(digits)
    if count <= asked:
        raise ConfigError(f"--trials {trials}: study {folder.name} has {asked} trials already; write +N for N more")
    return count


def repeat(
    name: str,
    output_dir: str | Path = "outputs",
    overrides: Mapping[str, Any] | None = None,
    *,
    top: int | None = None,
    seeds: int | None = None,
    quiet: bool = False,
    json: bool = False,
    **options: Any,
) -> Repeats:
    """Train the best trials again over several seeds. `top`, `seeds`: None: as the study's `repeat_best` says.

    Raises:
        CabrucaError: there is no such study, or no trial with a value in it.
    """
    folder = find_study(name, output_dir)
    _newest(folder)
    study = folder.load(dict(overrides or {}))
    if read(folder.results).best(study) is None:
        raise RunError(
            f"study {folder.name} has no trial with a value to repeat; {command('tune', 'status', folder.path)}"
        )
    check_unmasked(study)
    from cabruca.distributed.cluster import set_environment

    set_environment(study.base)
    from cabruca.distributed.repeat import run_repeats

    own = "study.time_budget" in (overrides or {})  # that of the study's file is for what the study does itself
    budget_s = study.config.time_budget_s if own else None
    done = run_repeats(study, folder, top=top, seeds=seeds, budget_s=budget_s, quiet=quiet, json=json, **options)
    if done.state == "stopped" and not quiet:
        print(f"{TIME_IS_UP}; the same command goes on", file=sys.stderr, flush=True)
    from cabruca.distributed.importance import importances

    state = read(folder.results)
    write_report(study, folder, state, importances(study, state))
    if json:
        print(to_json({"event": "end", "state": done.state, "repeats": list(done.rows)}), flush=True)
    elif not quiet:
        print(f"report        {folder.report}", flush=True)
    return done


def _run(
    study: Study,
    folder: StudyDir,
    *,
    retry_failed: bool,
    quiet: bool = False,
    json: bool = False,
    closes: bool = True,
    **options: Any,
) -> StudyResult:
    """`closes`: say at the end where everything is."""
    from cabruca.distributed.cluster import set_environment

    set_environment(study.base)  # the next line imports Ray
    from cabruca.distributed.study import run_study

    if not folder.holds_study:
        folder = StudyDir.create(study)
    progress = study_progress_of(study, quiet=quiet, json=json)
    watchers = [progress, *options.pop("watchers", ())]
    try:
        result = run_study(
            study, folder, retry_failed=retry_failed, quiet=quiet, json=json, watchers=watchers, **options
        )
    finally:
        progress.close()
    if closes and not quiet and not json:
        print("\n".join(closing(study, folder)), flush=True)
    return result


def closing(study: Study, folder: StudyDir) -> list[str]:
    """Where everything of a study is and what to do next, a line each; only of what is there."""
    lines = [f"report        {folder.report}"] if folder.report.is_file() else []
    if folder.best_config.is_file():
        lines.append(f"best          {folder.best_config}")
        lines.append(f"  train it    {winner_command(study, folder)}")
        if not folder.repeats_json.is_file():
            lines.append(f"  was it luck {command('tune', 'repeat', folder.path)}")
    lines.append(f"more trials   {command('tune', 'extend', folder.path, '--trials', '+10')}")
    lines.append(f"look at it    {command('monitor', '--outputs', study.base.output_dir)}")
    lines.append(f"curves        {command('--logdir', folder.trials, program='tensorboard')}")
    lines.append(f"Optuna        {command('ui', 'optuna', '--study', folder.path)}")
    if study.base.tracking.mlflow:
        uri = study.base.tracking.mlflow_uri or f"sqlite:///{Path(study.base.output_dir) / 'mlflow.db'}"
        lines.append(f"MLflow        {hide(command('ui', '--backend-store-uri', uri, program='mlflow'))}")
    return lines
