"""What a study costs beside its training: against raw Ray Tune, per result as it grows, and seconds to the first step.

Table `raw`: a study of trials that train nothing (report one result, return), through the whole machinery (journal,
Optuna's sqlite file, ASHA that asks, desk, tables, gauges, log), against `tune.Tuner` on the same cluster with
OptunaSearch on the same kind of sqlite file, the same sampler, ASHAScheduler, as many trials at a time, reuse_actors.
Raw Tune runs twice: `lean` without its snapshots and result files (it then keeps nothing but Optuna's file), and `as it
comes`. The arms alternate. Both trial functions import what a real trial imports, and the first trials of a study wait
until all its processes are there (`study_arms.meet`): otherwise luck decides whether trials run side by side at all.

Table `growth`: the driver's milliseconds a trial (one result each) for studies of several sizes, and what of them each
part of cabruca takes; the slope is that of the time a trial over the number of trials. With
`--alone` without Ray, for large studies.

Table `first`: seconds from the command `cabruca tune` to the first optimizer step of trial 0, and from the moment at
which a process takes trial 1 up to its first step; light network, drawn plot, 1 thread, one trial at a time; with the
dry epoch and without it (as in a study that goes on).

    python experiments/benchmarks/study_cost.py [--tables raw growth first] [--trials 200] [--rounds 2]
        [--sizes 100 300 1000] [--sampler tpe] [--concurrent 2] [--alone] [--profile FILE]
"""

from __future__ import annotations

import argparse
import cProfile
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from study_arms import AT_ONCE, run_alone, run_ours, run_raw, study_in, timing  # noqa: E402

WANTED = 1.05


def table_raw(arguments: argparse.Namespace) -> str:
    """Ours against raw Ray Tune, medians over the rounds."""
    arms: dict[str, Callable[[int], float]] = {
        "cabruca": lambda n: run_ours(n, arguments),
        "raw, lean": lambda n: run_raw(n, arguments, lean=True),
        "raw, as it comes": lambda n: run_raw(n, arguments, lean=False),
    }
    spent: dict[str, list[float]] = defaultdict(list)
    for arm in ("cabruca", "raw, lean"):
        arms[arm](4)  # processes that import, sqlite's schema
    for _ in range(arguments.rounds):
        for arm, run in arms.items():
            spent[arm].append(run(arguments.trials))
            print(f"  {arm}: {spent[arm][-1]:.2f} s", flush=True)
    medians = {arm: statistics.median(values) for arm, values in spent.items()}
    lines = ["| study | seconds | ms a trial | cabruca / it | wanted |", "|---|---|---|---|---|"]
    for arm, seconds in medians.items():
        ratio = "" if arm == "cabruca" else f"{medians['cabruca'] / seconds:.3f} | {WANTED}"
        each = " ".join(f"{value:.2f}" for value in spent[arm])
        lines.append(f"| {arm} | {seconds:.2f} ({each}) | {seconds / arguments.trials * 1e3:.1f} | {ratio or ' | '} |")
    return "\n".join(lines)


def table_growth(arguments: argparse.Namespace) -> str:
    """Milliseconds a trial by size and part, and the slope."""
    run = run_alone if arguments.alone else run_ours
    run(4, arguments)
    found: dict[int, dict[str, float]] = {}
    for size in arguments.sizes:
        with timing() as clock:
            total = run(size, arguments)
        own = {part: seconds / size * 1e3 for part, seconds in clock.seconds.items()}
        whole = total / size * 1e3
        found[size] = {
            "wall": whole,
            "Ray Tune, processes": whole - sum(own.values()),
            "cabruca, Optuna": sum(own.values()),
        }
        found[size] |= own
        print(f"  {size} trials: {total:.1f} s", flush=True)
    small, large = min(found), max(found)
    lines = ["| ms a trial of a study of | " + " | ".join(map(str, found)) + " | per 1,000 trials more |"]
    lines.append("|---" * (len(found) + 2) + "|")
    for part in found[large]:
        cells = [f"{found[size].get(part, 0.0):.2f}" for size in found]
        slope = (found[large].get(part, 0.0) - found[small].get(part, 0.0)) / max(large - small, 1) * 1e3
        lines.append(f"| {part} | " + " | ".join(cells) + f" | {slope:+.2f} |")
    return "\n".join(lines)


def first_steps(arguments: argparse.Namespace, data: dict[str, str], *, dry: bool) -> tuple[float, float]:
    """Seconds to the first step of trial 0 from the command, and of trial 1 from its start."""
    from cabruca.tracking.study_dir import StudyDir
    from cabruca.tracking.study_events import events

    with tempfile.TemporaryDirectory() as folder:
        settings = {
            **data,
            **{"output_dir": folder, "model.pretrained": "none", "device": "cpu", "tracking.tensorboard": False},
            **{"data.windows_per_epoch": 8, "data.tile_size": 256, "data.overlap": 32, "data.num_workers": 0},
            **{"data.batch_size": 4, "training.gradient_accumulation_steps": 1, "training.log_interval": 1},
            "tracking.system_metrics_s": 0,
        }
        keys: dict[str, Any] = {"max_epochs": 1, "max_concurrent_trials": 1, "set": settings}
        study = study_in(Path(folder), 2, arguments, **keys)
        study_dir = StudyDir.of(study)
        if not dry:
            study_dir.path.mkdir(parents=True)
            study_dir.estimate.write_text("{}\n")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "cabruca", "tune", "--study", f"{folder}/study.yaml", "--quiet"]
        began = time.time()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        seen: dict[int, float] = {}
        while process.poll() is None:
            for number in {0, 1} - seen.keys():
                rows = study_dir.trial_dir(number).metrics
                if rows.is_file() and rows.stat().st_size:
                    seen[number] = time.time()
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"a command failed: {' '.join(command)}")
        started = {event["trial"]: event["time"] for event in events(study_dir.results) if event["event"] == "started"}
    return seen[0] - began, seen[1] - started[1]


def table_first(arguments: argparse.Namespace) -> str:
    """Seconds to the first steps, medians over the rounds."""
    from cabruca.data.synthetic import draw_plot

    found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        plot = draw_plot(Path(folder), size_px=1024, gsd_m=0.1, seed=0)
        data = {f"data.{part}_dir": str(plot.images_dir) for part in ("train", "val")}
        data |= {
            "data.train_annotations": str(plot.train_annotations),
            "data.val_annotations": str(plot.val_annotations),
        }
        for _ in range(arguments.rounds):
            for dry, rows in found.items():
                rows.append(first_steps(arguments, data, dry=dry))
                print(f"  dry epoch {dry}: {rows[-1]}", flush=True)
    lines = ["| dry epoch | command to first step of trial 0 | start to first step of trial 1 |", "|---|---|---|"]
    for dry, rows in found.items():
        first, second = (statistics.median(values) for values in zip(*rows, strict=True))
        lines.append(f"| {'on' if dry else 'off'} | {first:.1f} s | {second:.2f} s |")
    return "\n".join(lines)


@contextmanager
def profiled(file: str | None) -> Iterator[None]:
    """cProfile of the thread that drives the study, added up over all studies, written to `file`."""
    from cabruca.distributed import study_run

    if file is None:
        yield
        return
    profile, fit = cProfile.Profile(), study_run._fit
    with patch.object(study_run, "_fit", lambda *args: profile.runcall(fit, *args)):
        yield
    profile.dump_stats(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=("raw", "growth", "first"), default=["raw", "growth", "first"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 300, 1000])
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    parser.add_argument("--alone", action="store_true", help="growth: the driver's own work without Ray")
    parser.add_argument("--profile", metavar="FILE", help="cProfile of the thread that drives the studies")
    for name, default in (("trials", 200), ("rounds", 2), ("concurrent", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    from cabruca.config.load import config_from_dict
    from cabruca.distributed.cluster import cluster_for

    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])  # for Ray's processes
    os.environ[AT_ONCE] = str(arguments.concurrent)
    os.environ.setdefault("RAY_worker_niceness", "0")  # else whatever runs beside it takes the trials' share first
    tables: list[str] = []
    if arguments.alone:
        tables.append(table_growth(arguments))
    elif {"raw", "growth"} & set(arguments.tables):
        with cluster_for(config_from_dict({})), profiled(arguments.profile):
            tables += [table_raw(arguments)] if "raw" in arguments.tables else []
            tables += [table_growth(arguments)] if "growth" in arguments.tables else []
    tables += [table_first(arguments)] if "first" in arguments.tables and not arguments.alone else []
    print("\n\n".join(tables))


if __name__ == "__main__":
    main()
