"""`cabruca demo`: the whole way once, on a practice plot: draw, search, train, evaluate, look."""

from __future__ import annotations

import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cabruca.commands import command
from cabruca.config.load import load_config
from cabruca.config.schema import Config
from cabruca.data.synthetic import PlotFiles, draw_plot
from cabruca.demo_study import Searched, search, winner
from cabruca.errors import ConfigError
from cabruca.evaluation import evaluate
from cabruca.run import run_training
from cabruca.tracking.files import to_json, write_atomic
from cabruca.train.protocols import TrainResult

PLOT_PX, PLOT_GSD_M = 1024, 0.1
"""Side of the practice plot and metres a pixel; a strip of a quarter of it is never trained on."""

TRIALS = 6
EPOCHS = 6
WINDOWS = 128

FLOORS = {"segm_mAP_50": 0.7, "total_count_accuracy": 0.7, "canopy_iou": 0.75}
"""Below any of these the installation is broken, whatever it printed. Measured: see experiments/LOG.md."""

PRESET = "training_config_light.yaml"


def run_demo(output_dir: Path, seed: int = 0, quiet: bool = False, trials: int = TRIALS, *, json: bool = False) -> int:
    """Draw, search, train, evaluate; write `summary.json` and pictures into `output_dir`.

    Args:
        trials: of the study; 0: no study, the preset's own settings are trained.
        json: the summary as an object, not as text.

    Returns:
        0, or 1 when a number falls under its floor, or the exit code of what was interrupted.
    """
    began = time.monotonic()
    say: Callable[[str], None] = (lambda text: None) if quiet else (lambda text: print(text, flush=True))
    output_dir.mkdir(parents=True, exist_ok=True)
    say(f"1/4  drawing a practice plot of cabruca into {output_dir / 'plot'}")
    plot = draw_plot(output_dir / "plot", size_px=PLOT_PX, gsd_m=PLOT_GSD_M, seed=seed)
    config, found = demo_config(plot, output_dir, seed), None
    if trials:
        say(f"2/4  a study of {trials} short trials on local Ray: learning rate and weight decay")
        found = search(config, output_dir, trials=trials, seed=seed, quiet=quiet)
        if found.exit_code or not found.folder.best_config.is_file():
            return found.exit_code or 1
        config = winner(found, config)
    say(f"3/4  training {'the winner anew' if found else 'the light network'} on three quarters, {EPOCHS} epochs")
    result = run_training(config, quiet=quiet)
    if result.state != "finished":
        return result.exit_code or 1
    run_dir = newest_run(output_dir)
    # the last checkpoint, not the best: the strip must not choose the network that it then judges
    last = run_dir / "checkpoints" / "checkpoint_latest.pth"
    say("4/4  evaluating on the quarter that was held out")
    metrics = evaluate(
        last, plot.images_dir, plot.val_annotations, num_pictures=4, pictures_dir=output_dir / "pictures"
    )
    summary = summarise(result, metrics, time.monotonic() - began)
    write_atomic(output_dir / "summary.json", to_json(summary) + "\n")
    if found is not None:
        say(f"\n{found.board()}\n")
    print(to_json(summary) if json else numbers(summary), flush=True)
    say(closing(output_dir, run_dir, plot, last, found))
    short = under_floors(summary)
    for line in short:
        print(f"cabruca demo: {line}", file=sys.stderr)
    return 1 if short else 0


def demo_config(plot: PlotFiles, output_dir: Path, seed: int) -> Config:
    """The light preset on the practice plot."""
    return load_config(
        preset_path(),
        {
            "output_dir": str(output_dir),
            "data.train_dir": str(plot.images_dir),
            "data.val_dir": str(plot.images_dir),
            "data.train_annotations": str(plot.train_annotations),
            "data.val_annotations": str(plot.val_annotations),
            "data.windows_per_epoch": WINDOWS,
            "training.num_epochs": EPOCHS,
            "training.seed": seed,
            "validation.frequency": EPOCHS // 2,
        },
    )


def preset_path() -> Path:
    """The light preset: in the clone, or where a wheel's data files went.

    Raises:
        ConfigError: it is in neither place.
    """
    places = [
        Path(__file__).resolve().parent.parent / "configs",
        Path(sysconfig.get_path("data")) / "share" / "cabruca" / "configs",
    ]
    for place in places:
        if (place / PRESET).is_file():
            return place / PRESET
    raise ConfigError(f"the preset {PRESET} is in none of {', '.join(map(str, places))}; run the demo from a clone")


def newest_run(output_dir: Path) -> Path:
    """The run folder that was made last (names carry their time)."""
    return max(output_dir.glob("cabruca_*/status.json"), key=lambda p: p.stat().st_mtime).parent


def summarise(result: TrainResult, metrics: Mapping[str, float | None], seconds: float) -> dict[str, Any]:
    """What `summary.json` holds."""
    kept = {name: metrics.get(name) for name in FLOORS}
    return {"epochs": result.epochs, **kept, "seconds": round(seconds, 1)}


def under_floors(summary: Mapping[str, Any]) -> list[str]:
    """A line for every number that is missing or too low."""
    return [
        f"{name} is {summary.get(name)}, under the floor {floor}: the network did not learn; see train.log"
        for name, floor in FLOORS.items()
        if (summary.get(name) or 0.0) < floor
    ]


def numbers(summary: Mapping[str, Any]) -> str:
    """The summary in a line."""
    return "   ".join(f"{k} {v:.3f}" if k in FLOORS and v is not None else f"{k} {v}" for k, v in summary.items())


def closing(output_dir: Path, run_dir: Path, plot: PlotFiles, checkpoint: Path, found: Searched | None) -> str:
    """Where everything is, and what to do next."""
    held_out = ["--images", str(plot.images_dir), "--annotations", str(plot.val_annotations)]
    evaluation = command("evaluate", "--checkpoint", str(checkpoint), *held_out)
    longer = ["--config", str(run_dir / "config.yaml"), "--experiment-name", "longer", "--epochs", "30"]
    study = "".join(f"\n  {line}" for line in found.next_steps()) if found else ""
    return f"""
  plot       {plot.train_image.parent}/  (GeoTIFF, EPSG:31984; open it and {plot.crowns_geojson.name} in QGIS)
  pictures   {output_dir / "pictures"}/  (truth beside prediction)
  run        {run_dir}/  (checkpoints, metrics, TensorBoard)
  summary    {output_dir / "summary.json"}
{f"{chr(10)}the study:{study}{chr(10)}" if found else ""}
next:
  {evaluation}
  {command("train", *longer)}
  {command("--logdir", run_dir / "tensorboard", program="tensorboard")}"""
