"""MODEL_CARD.md of a run folder, for whoever gets the weights: what they are for, how good they are, where they fail.

The parts are those of Mitchell et al. 2019, "Model cards for model reporting" (FAT* 2019, doi:10.1145/3287560.3287596);
the lines between `---` at the top are the metadata that the Hugging Face Hub reads. What only a person can know stands
in it as a question.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cabruca._version import __version__
from cabruca.config.load import to_yaml
from cabruca.config.schema import Config, DataConfig
from cabruca.tracking.card_data import SetFacts, guessed_classes
from cabruca.tracking.card_text import CONSIDERATIONS, INTENDED, number, section, table
from cabruca.tracking.run_dir import RunDir
from cabruca.words import counted

HEADLINES = (
    *("mAP", "mAP_50", "mAP_75", "mIoU", "canopy_iou", "total_count_accuracy", "species_accuracy"),
    *("crown_diameter_mae_m", "crown_diameter_bias_m", "canopy_cover_error", "shade_distribution_score"),
)
"""Metrics of the card's table that are not of one class."""

BY_CLASS = ("bbox_mAP_50/{name}", "segm_mAP_50/{name}", "{short}_count_accuracy", "{short}_precision", "{short}_recall")

UNKNOWN = "not known"


@dataclass(frozen=True)
class Card:
    """What a card is made of.

    Attributes:
        sets: of the annotation files. task: `state()` of the run's task. environment: as environment.json.
        best: the sidecar of checkpoint_best; metrics: the record of its epoch. None and empty: not trained yet.
        tested: numbers of the held-out test.
    """

    run_dir: RunDir
    config: Config
    sets: Sequence[SetFacts] = ()
    task: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    best: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tested: Mapping[str, Any] = field(default_factory=dict)


def gather(run_dir: RunDir, config: Config, task: Mapping[str, Any], sets: Sequence[SetFacts]) -> Card:
    """Read from the run's folder what it knows by now."""
    best = _read(run_dir.best.with_suffix(".json")) or None
    metrics: dict[str, Any] = {}
    history = _read(run_dir.history)
    if best and best.get("epoch") in history.get("epoch", []):
        at = history["epoch"].index(best["epoch"])
        metrics = {name: values[at] for name, values in history.items()}
    tested = _read(run_dir.test / "metrics.json")
    return Card(run_dir, config, sets, task, _read(run_dir.environment), best, metrics, tested)


def model_card(card: Card) -> str:
    """The whole file."""
    parts = [
        f"---\n{to_yaml(_metadata(card))}---\n",
        f"# {card.run_dir.name}\n",
        _details(card),
        section("Intended use", INTENDED),
        _factors(card),
        _metrics(card),
        _data(card),
        section("Ethical considerations", CONSIDERATIONS),
        _caveats(card),
        _usage(card),
    ]
    return "\n".join(parts)


def _metadata(card: Card) -> dict[str, Any]:
    """https://huggingface.co/docs/hub/model-cards, `model-index` included."""
    values = [
        {"type": name, "name": name, "value": value} for name, value in _headlines(card).items() if value is not None
    ]
    dataset = {"type": "coco", "name": Path(card.config.data.val_annotations).name, "split": "validation"}
    task = {"type": "image-segmentation", "name": "tree crowns and land cover"}
    index = {"name": card.run_dir.name, "results": [{"task": task, "dataset": dataset, "metrics": values}]}
    return {
        "library_name": "cabruca",
        "pipeline_tag": "image-segmentation",
        "tags": ["cabruca", "agroforestry", "cacao", "remote-sensing", "tree-crowns", "instance-segmentation"],
        # the Hub's word for a licence that is none of its list; the weights' owner decides
        "license": "other",
        "license_name": "to-be-chosen",
        **({"model-index": [index]} if values else {}),
    }


def _details(card: Card) -> str:
    model, packages = card.config.model, card.environment.get("packages") or {}
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "torchvision", "timm") if packages.get(name))
    digest = UNKNOWN
    if card.run_dir.config_yaml.is_file():
        digest = hashlib.sha256(card.run_dir.config_yaml.read_bytes()).hexdigest()
    weights = f"{model.pretrained} weights of timm" if model.pretrained != "none" else "random weights"
    began = model.pretrained_checkpoint or weights
    rows = {
        "network": f"{model.backbone} with FPN; heads: {', '.join(model.heads)}",
        "began with": began,
        "instance classes": ", ".join(model.instance_names) if "instance" in model.heads else "none",
        "land cover classes": ", ".join(model.semantic_names) if "semantic" in model.heads else "none",
        "input": _input(card),
        "checkpoint": _checkpoint(card),
        "configuration": f"`config.yaml`, sha256 `{digest}`",
        "made with": f"cabruca {__version__}, Python {card.environment.get('python', UNKNOWN)}, {versions or UNKNOWN}",
        "code": _commit(card.environment.get("git")),
        "device": str(card.environment.get("gpu") or card.environment.get("cpu") or UNKNOWN),
        "licence of the weights": "**to be chosen** by their owner; see the licences of the data below",
        "licence of the software": "Apache-2.0",
        "contact": "**to be filled in**",
    }
    return section("Model details", table(["", ""], [[key, value] for key, value in rows.items()]))


def _factors(card: Card) -> str:
    sites = sorted({site for own in card.sets for site in own.sites})
    gsd = [v for own in card.sets for v in own.gsd_m or ()]
    scale = "known neither from the annotation files nor from the pictures"
    target, seen = card.config.data.target_gsd_m, (card.task.get("data") or {}).get("gsd_m")
    if gsd:
        scale = f"{min(gsd):g}{f' to {max(gsd):g}' if min(gsd) < max(gsd) else ''} m a pixel"
    elif seen is not None and target is None:
        scale = f"{seen:.3g} m a pixel, the median of the training pictures, as their georeference says"
    elif target is not None:
        scale = "as the pictures' georeference says"
    if target is not None:
        scale += f"; resampled to {target:g} m"
    named = ", ".join(sites[:20]) + (f" and {len(sites) - 20} more" if len(sites) > 20 else "")
    return section(
        "Factors",
        [
            f"- ground sampling distance: {scale}",
            f"- sites: {named or 'not stated in the annotation files: where were the pictures taken?'}",
            "- season, hour, sensor and height of flight: **to be filled in**; what differs from training is untested",
        ],
    )


def _metrics(card: Card) -> str:
    if card.best is None:
        return section(
            "Metrics", ["No checkpoint has been validated yet; this card is written anew when the run ends."]
        )
    told = [
        f"Of `{card.run_dir.best.name}`, after epoch {card.best.get('epoch')}, on the validation set. It was chosen by"
    ]
    told += [f"`{card.config.training.monitor_metric}` on that set, so the numbers are somewhat too good.", ""]
    tested = bool(card.tested)
    head = ["metric", "validation", *(["test (held out)"] if tested else [])]
    rows = [
        [name, number(value), *([number(card.tested.get(name))] if tested else [])]
        for name, value in _headlines(card).items()
    ]
    known = [row for row in rows if row[1:] != ["-"] * (len(row) - 1)]
    more = [
        "",
        f"Crowns are counted from a score of {_threshold(card)} on. Formulas: docs/metrics.md of cabruca. Pictures:",
        "`plots/` (curves, confusion, counts, diameters), `predictions/` (truth beside prediction).",
    ]
    return section("Metrics", [*told, *table(head, known), *more])


def _data(card: Card) -> str:
    lines: list[str] = []
    classes = card.config.model.instance_names
    for own in card.sets:
        lines += [f"### {own.name.capitalize()}", "", f"- file: `{own.file}`"]
        if own.images is None:
            lines += [f"- {own.why}", ""]
            continue
        licences = ", ".join(own.licences) or "not stated in the file: **to be filled in**"
        lines += [
            f"- {counted(own.images, 'picture')}, {counted(sum(own.crowns.values()), 'annotation')}",
            f"- licences: {licences}",
            "",
        ]
        names = [*(n for n in classes if n in own.crowns), *sorted(own.crowns.keys() - {*classes})]
        lines += table(["class", "annotations", "with outline"],
                        [[n, str(own.crowns[n]), str(own.masks.get(n, 0))] for n in names])  # fmt: skip
        lines.append("")
    return section("Training and evaluation data", lines[:-1] or ["not known"])


def _caveats(card: Card) -> str:
    lines = [
        f"- Counts hold at a score of {_threshold(card)}; on other imagery the right score is another, and a sample of",
        "  counted trees tells which.",
    ]
    boxed = [n for own in card.sets for n, c in own.crowns.items() if own.name == "training" and c and not own.masks[n]]
    if boxed:
        lines.append(f"- Labelled with boxes alone: {', '.join(sorted(boxed))}. Their outlines were never learnt.")
    missing = guessed_classes(card.task, card.sets, card.config.model.instance_names)
    if missing:
        lines.append(f"- No example in training: {', '.join(missing)}. What it says of them is a guess.")
    if not card.tested:
        asked = card.config.data.test_annotations  # the default counts where the file is there
        named = bool(asked) and (asked != DataConfig().test_annotations or Path(asked).is_file())
        why = (
            "The held-out test has not been made yet."
            if named
            else ("No held-out test was made: `data.test_annotations` names none.")
        )
        lines.append(f"- {why} The numbers above chose the model.")
    lines.append("- Crowns that grow into each other are one crown in the picture, and often here.")
    return section("Caveats and recommendations", lines)


def _usage(card: Card) -> str:
    """Commands and paths as they hold in a copy of the run's folder, wherever it lies."""
    best = f"{card.run_dir.checkpoints.name}/{card.run_dir.best.name}"
    return section(
        "How to use it",
        [
            "In this folder:",
            "",
            "```bash",
            "pip install PATH_TO_CABRUCA   # the folder of its source: it is on no package index",
            "# measure it on your own labels",
            f"cabruca evaluate --checkpoint {best} --images PICTURES --annotations LABELS.json --pictures measured",
            "# teach it your site",
            f"cabruca train --config config.yaml --init-from {best} --experiment-name mine \\",
            "  --set data.train_dir=PICTURES --set data.train_annotations=LABELS.json",
            "```",
            "",
            "```python",
            "from cabruca.evaluation import load_model",
            "",
            f'model, config, spec = load_model("{best}")   # a torch module in eval mode, on the CPU',
            "```",
        ],
    )


def _headlines(card: Card) -> dict[str, Any]:
    """Metric -> value of the best epoch, None where it is undefined."""
    names = [*HEADLINES]
    for name in card.config.model.instance_names:
        names += [own.format(name=name, short=name.removesuffix("_tree")) for own in BY_CLASS]
    found = {name: card.metrics.get(f"val/{name}") for name in names if f"val/{name}" in card.metrics}
    monitor = card.config.training.monitor_metric
    if card.metrics.get(monitor) is not None:
        found = {monitor.removeprefix("val/"): card.metrics[monitor], **found}
    return {n: v if isinstance(v, int | float) and math.isfinite(v) else None for n, v in found.items()}


def _threshold(card: Card) -> str:
    """The score of the operating point where the checkpoint's sidecar has one, else the configuration's."""
    point = (card.best or {}).get("operating_point")
    scores = point.get("score") if isinstance(point, Mapping) else None
    if isinstance(scores, Mapping) and scores:
        return ", ".join(f"{value:.2f} ({name})" for name, value in scores.items())
    return f"{card.config.validation.score_threshold:g}"


def _input(card: Card) -> str:
    spec = card.task.get("input")
    if not isinstance(spec, Mapping):
        return UNKNOWN
    bands = ", ".join(map(str, spec.get("bands") or ()))
    scale = "native resolution" if spec.get("gsd_m") is None else f"{spec['gsd_m']:g} m a pixel"
    return f"bands {bands}, divided by {spec.get('scale'):g}, {scale}, windows of {spec.get('tile_size')} px"


def _checkpoint(card: Card) -> str:
    if card.best is None:
        return "none yet"
    size = f"{card.best.get('bytes', 0) / 1e6:.1f} MB"
    return f"`{card.run_dir.best.name}`, {size}, sha256 `{card.best.get('sha256', UNKNOWN)}`"


def _commit(git: Any) -> str:
    if not isinstance(git, Mapping) or not git.get("commit"):
        return "an installed package"
    return f"commit {git['commit']}" + (", with changes" if git.get("changed") else "")


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
