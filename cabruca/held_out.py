"""The held-out test: when a run has finished, its best checkpoint is measured once on pictures that chose nothing."""

from __future__ import annotations

import gc
import json
import logging
import shutil
from pathlib import Path

from cabruca._version import __version__
from cabruca.commands import command
from cabruca.config.keys import leaves
from cabruca.config.schema import Config
from cabruca.config.views import explicit_keys
from cabruca.errors import DataError
from cabruca.evaluation import evaluate
from cabruca.held_out_report import Facts, Numbers, report
from cabruca.tracking.carding import write_card
from cabruca.tracking.files import to_json, write_atomic
from cabruca.tracking.log import RunLog
from cabruca.tracking.run_dir import RunDir
from cabruca.tracking.signals import stopping
from cabruca.tracking.weights import read_source
from cabruca.train.protocols import NOTICE

_log = logging.getLogger("cabruca.run")

KEY = "data.test_annotations"


def wanted(config: Config) -> bool:
    """Whether a run ends with a test: `data.test_annotations` was set, or the file is there.

    A configuration that gives every key of the data is a resolved one (a checkpoint's), in which a default was set by
    nobody. An empty name switches the test off: a study must not choose by the test set.
    """
    if not config.data.test_annotations:
        return False
    given = explicit_keys(config)
    defaults = {key: value for key, value in leaves() if key.startswith("data.")}
    asked = KEY in given and (given[KEY] != defaults[KEY] or not given.keys() >= defaults.keys())
    return asked or Path(config.data.test_annotations).is_file()


def measure_best(run_dir: RunDir, config: Config, quiet: bool = False) -> Numbers | None:
    """Measure the best checkpoint on the test set and write `test/`; what goes wrong costs a warning, not the run.

    `test/metrics.json` is one flat object, name -> number or null; `test/pictures/` holds truth beside prediction,
    `test/plots/` curves, confusion, counts and diameters (`testing.save_outputs`); `test/report.md` is for people
    (`testing.generate_report`).

    Returns:
        The numbers; None where there is no test set, or where the test failed.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM (`Stopped`); the warning has been given.
    """
    if not wanted(config):
        return None
    log = RunLog(run_dir.log, quiet=quiet)
    log.open()
    try:
        with stopping():
            return _test(run_dir, config)
    except (Exception, KeyboardInterrupt) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        again = command("evaluate", "--checkpoint", run_dir.best, "--images", config.data.test_dir, "--annotations",
                        config.data.test_annotations)  # fmt: skip
        _log.warning("the run is finished, its test is not (%s); do it with: %s", reason, again)
        if isinstance(error, KeyboardInterrupt):
            raise
        return None
    finally:
        log.close()


def _test(run_dir: RunDir, config: Config) -> Numbers:
    data, testing = config.data, config.testing
    if not Path(data.test_annotations).is_file():
        raise DataError(f"{KEY} {data.test_annotations} is not there; correct it, or leave it out")
    # without a single defined value of the monitored metric there is no best one
    checkpoint = run_dir.best if run_dir.best.is_file() else run_dir.latest
    if also := _also(config):
        _log.warning("test: %s is the %s set too, so it is not held out", data.test_annotations, also)
    _log.info("test: measuring %s on %s", checkpoint.name, data.test_annotations, extra=NOTICE)
    gc.collect()  # the network that was trained
    shutil.rmtree(run_dir.test, ignore_errors=True)  # of a run that was opened again
    pictures = run_dir.test / "pictures"
    numbers = evaluate(
        checkpoint,
        data.test_dir,
        data.test_annotations,
        device=config.device,
        batch_size=testing.batch_size,
        num_pictures=config.validation.num_pictures,
        pictures_dir=pictures if testing.save_outputs else None,
        plots_dir=run_dir.test / "plots" if testing.save_outputs else None,
    )
    run_dir.test.mkdir(parents=True, exist_ok=True)
    write_atomic(run_dir.test / "metrics.json", to_json(numbers, indent=1) + "\n")
    shown = [*sorted((run_dir.test / "plots").glob("*.png")), *map(_renamed, sorted(pictures.glob("*.png")))]
    files = [file.relative_to(run_dir.test).as_posix() for file in shown]
    if testing.generate_report:
        facts = _facts(run_dir, config, checkpoint, files)
        write_atomic(run_dir.test / "report.md", report(facts, numbers))
    write_card(run_dir, config, read_source(checkpoint).task)
    name = config.training.monitor_metric.removeprefix("val/")
    value = numbers.get(name)
    _log.info("test: %s %s; all numbers: %s", name, "-" if value is None else format(value, ".4g"),
              run_dir.test / "metrics.json", extra=NOTICE)  # fmt: skip
    return numbers


def _also(config: Config) -> str:
    """`training` or `validation` where the test set is the same file."""
    data = config.data
    own = Path(data.test_annotations).resolve()
    used = {"training": data.train_annotations, "validation": data.val_annotations}
    return next((name for name, file in used.items() if Path(file).resolve() == own), "")


def _renamed(file: Path) -> Path:
    """Comparisons are drawn as `val_...`; these are of the test."""
    return file.rename(file.with_name(f"test_{file.name.removeprefix('val_')}"))


def _facts(run_dir: RunDir, config: Config, checkpoint: Path, pictures: list[str]) -> Facts:
    beside = json.loads(checkpoint.with_suffix(".json").read_text(encoding="utf-8"))
    return Facts(
        run=run_dir.name,
        version=__version__,
        checkpoint=checkpoint.name,
        epoch=int(beside["epoch"]),
        images=config.data.test_dir,
        annotations=config.data.test_annotations,
        monitor=config.training.monitor_metric,
        validated=beside["metric"],
        pictures=pictures,
        also=_also(config),
    )
