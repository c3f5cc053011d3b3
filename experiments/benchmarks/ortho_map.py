"""From an orthomosaic to a map, scored on the map: prepare, train, predict, precision and recall, seconds a hectare.

    python experiments/benchmarks/ortho_map.py --data FOLDER --map oil_palm=cacao_tree --epochs 14

FOLDER holds ortho.tif, boxes.geojson (crowns), split_regions.geojson (`split`: train or val) and perhaps
labelled_area.geojson. What is found is compared with the crowns in map coordinates, region by region: a crown belongs
to the region its centre lies in, a pair needs an IoU of 0.5 of the polygons. Every command is the command line's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyogrio.raw import read

from cabruca.metrics.matching import best_pairs

MIN_IOU = 0.5


def run(*words: object) -> float:
    """Seconds of a command of cabruca."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "cabruca", *map(str, words)]
    print("$ cabruca", *words, flush=True)
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def layer(path: Path, name: str | None = None, where: str | None = None) -> tuple[Any, dict[str, Any]]:
    """Geometries and columns."""
    meta, _, shapes, columns = read(path, layer=name, where=where)
    return shapely.from_wkb(shapes), dict(zip(meta["fields"], columns, strict=True))


def scored(found: Any, true: Any) -> dict[str, float]:
    """Precision, recall, F1 at IoU 0.5 over polygons `found [N]` and `true [M]`, and the error of the count."""
    rows, columns = shapely.STRtree(true).query(found)
    both = shapely.area(shapely.intersection(found[rows], true[columns]))
    iou = both / (shapely.area(found[rows]) + shapely.area(true[columns]) - both)
    near = iou >= MIN_IOU
    pairs = best_pairs(rows[near], columns[near], iou[near], (len(found), len(true)))
    hits = len(pairs)
    precision, recall = hits / max(1, len(found)), hits / max(1, len(true))
    f1 = 2 * precision * recall / max(1e-9, precision + recall)
    return {
        "found": len(found),
        "true": len(true),
        "precision": precision,
        "recall": recall,
        "F1": f1,
        "count error": (len(found) - len(true)) / max(1, len(true)),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--map", required=True, help="VALUE=CLASS of data prepare")
    arguments.add_argument("--label-field", default="class")
    arguments.add_argument("--config", default="configs/training_config_light.yaml")
    arguments.add_argument("--epochs", type=int, default=14)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--out", type=Path, required=True, help="a new folder")
    arguments.add_argument("--prepare", nargs="*", default=[], help="more words for data prepare")
    arguments.add_argument("--train", nargs="*", default=[], help="KEY=VALUE for train")
    given = arguments.parse_args()
    data, out, area = given.data, given.out, given.data / "labelled_area.geojson"
    seconds = {}
    aoi = ["--aoi", area] if area.is_file() else []
    seconds["prepare"] = run("data", "prepare", "--image", data / "ortho.tif", "--labels", data / "boxes.geojson",
        "--label-field", given.label_field, "--map", given.map, *aoi, "--split",
        f"{data / 'split_regions.geojson'}:split", "--config", given.config, *given.prepare,
        "--out", out / "prepared")  # fmt: skip
    overrides = [word for change in given.train for word in ("--set", change)]
    seconds["train"] = run("train", "--config", out / "prepared" / "config.yaml", "--output-dir", out, "--quiet",
        "--experiment-name", "run", "--epochs", given.epochs, "--seed", given.seed, *overrides)  # fmt: skip
    best = out / "run" / "checkpoints" / "checkpoint_best.pth"
    farm = out / "farm.gpkg"
    seconds["predict"] = run("predict", "--checkpoint", best, "--image", data / "ortho.tif", "--out", farm, *aoi)
    crowns, _ = layer(farm, "crowns")
    _, plots = layer(farm, "plots")
    truth, _ = layer(data / "boxes.geojson")
    regions, columns = layer(data / "split_regions.geojson")
    labelled = shapely.union_all(layer(area)[0]) if area.is_file() else None
    hectares = float(np.sum(plots["area_ha"]))
    print(json.dumps({"seconds": seconds, "hectares": hectares, "predict s/ha": seconds["predict"] / hectares}))
    for region, name in zip(regions, columns["split"], strict=True):
        ground = region if labelled is None else shapely.intersection(region, labelled)
        shapely.prepare(ground)
        inside = [s[shapely.contains(ground, shapely.centroid(s))] for s in (crowns, truth)]
        print(name, json.dumps({k: round(v, 4) for k, v in scored(*inside).items()}), flush=True)


if __name__ == "__main__":
    main()
