"""The figures behind experiments/SCALE.md: a checkpoint's bytes, the object store, Ray Train's reports.

Table `checkpoints`: bytes of a whole checkpoint (weights, optimizer's moments) of both presets, and seconds to write it
as a run does (flushed to disk, with its sha256), beside a plain copy of as many bytes to the same disk.

Table `store`: MB/s into and out of Ray's object store, in one process, and between two processes of one node, beside a
plain copy in memory: the store's share is the ratio.

Table `reports`: `ray.train.report` calls a second of two workers that do nothing else, by the seconds between the
controller's looks (`RAY_TRAIN_HEALTH_CHECK_INTERVAL_S`; cabruca sets 0.25, Ray's own is 2).

    python experiments/benchmarks/scale.py [--tables checkpoints store reports] [--megabytes 256] [--reports 40]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]


def table_checkpoints() -> str:
    """Both presets."""
    import torch

    from cabruca.config.load import load_config
    from cabruca.model.build import build_model
    from cabruca.structures import InputSpec

    names = (("cacao_tree", "shade_tree"), ("background", "cacao_tree", "shade_tree", "understory", "soil", "shadows"))
    spec = InputSpec((1, 2, 3), 255.0, (0.5,) * 3, (0.25,) * 3, 256, None, {}, *names)
    from cabruca.train import checkpoint

    rows = []
    for name in ("training_config_light", "training_config"):
        config = load_config(ROOT / "configs" / f"{name}.yaml", {"model.pretrained": "none"})
        model = build_model(config, spec, weights=False)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        count = sum(p.numel() for p in model.parameters())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint_latest.pth"
            began = time.perf_counter()
            checkpoint.write(path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, metric=None)
            spent = time.perf_counter() - began
            size = path.stat().st_size
            began = time.perf_counter()
            with path.open("rb") as source, (Path(folder) / "copy").open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
                os.fsync(sink.fileno())
            plain = time.perf_counter() - began
        rows.append(
            f"| {name} | {count / 1e6:.1f} | {size / 1e6:.0f} | {spent:.2f} | {plain:.2f} | {spent / plain:.1f} |"
        )
    head = "| preset | million weights | MB a checkpoint | s to write | s to copy | ratio |\n|---|---|---|---|---|---|"
    return "\n".join([head, *rows])


def table_store(megabytes: int) -> str:
    """One node."""
    import numpy as np
    import ray

    untyped: Any = ray
    block = np.ones(megabytes << 20, dtype=np.uint8)

    @untyped.remote(num_cpus=0)
    class Other:
        def ready(self) -> None: ...

        def read(self, found: Any) -> int:
            return int(found[:: 1 << 12].sum())

        def make(self, size: int) -> Any:
            return np.ones(size, dtype=np.uint8)

    other = Other.remote()
    untyped.get(other.ready.remote())
    spent: dict[str, list[float]] = {}

    def timed(name: str, work: Any) -> Any:
        began = time.perf_counter()
        found = work()
        spent.setdefault(name, []).append(time.perf_counter() - began)
        return found

    for _ in range(4):
        timed("plain copy in memory", block.copy)
        handle = timed("put", lambda: untyped.put(block))
        timed("get, same process", lambda handle=handle: untyped.get(handle)[:: 1 << 12].sum())
        timed("read by another process", lambda handle=handle: untyped.get(other.read.remote(handle)))
        timed("made there, read here", lambda: int(untyped.get(other.make.remote(block.size))[:: 1 << 12].sum()))
        del handle
    plain = min(spent["plain copy in memory"])
    rows = [
        f"| {name} | {megabytes * 1.048576 / min(times):,.0f} | {plain / min(times):.2f} |"
        for name, times in spent.items()
    ]
    began = time.perf_counter()
    for _ in range(1000):
        untyped.get(other.ready.remote())
    calls = 1000 / (time.perf_counter() - began)
    return "\n".join(
        [
            "| of blocks | MB/s | of a plain copy |\n|---|---|---|",
            *rows,
            "",
            f"small calls, one after another: {calls:,.0f} a second",
        ]
    )


REPORTS = """
import sys, time, ray, ray.train, ray.train.torch
def work(config):
    began = time.time()
    for i in range(config["count"]):
        ray.train.report({"i": i})
    if ray.train.get_context().get_world_rank() == 0:
        print("RATE", config["count"] / (time.time() - began), flush=True)
ray.init(address="local", include_dashboard=False, dashboard_host="127.0.0.1", _node_ip_address="127.0.0.1", num_cpus=2)
scaling = ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})
run = ray.train.RunConfig(name="reports", storage_path=sys.argv[2])
own = {"count": int(sys.argv[1])}
ray.train.torch.TorchTrainer(work, train_loop_config=own, scaling_config=scaling, run_config=run).fit()
"""


def table_reports(count: int) -> str:
    """Each interval in a process of its own."""
    rows = []
    for interval in ("0.25", "2"):
        env = {**os.environ, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": interval, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        own = count if interval == "0.25" else max(4, count // 8)
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, "-c", REPORTS, str(own), folder]
            done = subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=200)
        rates = [
            line.rsplit("RATE ", 1)[1].split()[0]
            for line in (done.stdout + done.stderr).splitlines()
            if "RATE " in line
        ]
        rows.append(
            f"| {interval} | {float(rates[0]):.2f} |" if rates else f"| {interval} | failed: {done.stderr[-300:]} |"
        )
    return "\n".join(["| seconds between looks | reports a second |\n|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", nargs="+", default=["checkpoints", "store", "reports"])
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--reports", type=int, default=40)
    arguments = parser.parse_args()
    if "checkpoints" in arguments.tables:
        print(table_checkpoints(), flush=True)
    if "reports" in arguments.tables:
        print(table_reports(arguments.reports), flush=True)
    if "store" in arguments.tables:
        from cabruca.config.load import config_from_dict
        from cabruca.distributed.cluster import cluster_for

        with cluster_for(config_from_dict({"distributed": {"dashboard": False, "address": "local"}})):
            print(table_store(arguments.megabytes), flush=True)


if __name__ == "__main__":
    main()
