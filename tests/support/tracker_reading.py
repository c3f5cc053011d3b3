"""What trackers have written, read back with their own readers (W&B's offline file: with its record format)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Points = dict[str, list[tuple[int, float]]]


def tensorboard_points(folder: Path) -> Points:
    """Tag -> [(step, value)]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def mlflow_client(uri: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri)


def sqlite_uri(output_dir: Path) -> str:
    return f"sqlite:///{output_dir / 'mlflow.db'}"


def mlflow_runs(uri: str, experiment: str = "cabruca") -> list[Any]:
    """The experiment's runs, by name."""
    client = mlflow_client(uri)
    found = client.get_experiment_by_name(experiment)
    runs = list(client.search_runs([found.experiment_id])) if found else []
    return sorted(runs, key=lambda run: str(run.info.run_name))


def mlflow_points(uri: str, run: Any, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in mlflow_client(uri).get_metric_history(run.info.run_id, name))


def mlflow_files(uri: str, run: Any) -> set[str]:
    """Paths of a run's artifacts, folders not included."""
    client = mlflow_client(uri)

    def walk(folder: str | None) -> Iterator[str]:
        for file in client.list_artifacts(run.info.run_id, folder):
            if file.is_dir:
                yield from walk(file.path)
            else:
                yield file.path

    return set(walk(None))


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline run's .wandb file: a LevelDB log of protocol buffers, behind a header of 7 bytes.

    Source: https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of the block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def wandb_points(file: Path) -> Points:
    """Name -> [(step, number)] of an offline run."""
    out: Points = {}
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                name, value = item.key or "/".join(item.nested_key), json.loads(item.value_json)
                if isinstance(value, int | float) and not name.startswith("_"):
                    out.setdefault(name, []).append((record.history.step.num, float(value)))
    return out


def hparams_tab(logdir: Path) -> list[tuple[str, dict[str, Any], dict[str, float]]]:
    """What TensorBoard's HPARAMS tab lists, asked of its own backend: (run, hyperparameters, metrics) of each row."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
    from werkzeug.test import Client

    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir))
    multiplexer.Reload()
    tab = HParamsPlugin(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(logdir)))).get_plugin_apps()

    def ask(route: str, **question: Any) -> Any:
        return json.loads(Client(tab[route]).post("/", json={"experimentName": "", **question}).data)

    columns = [{"metric": info["name"]} for info in ask("/experiment")["metricInfos"]]
    states = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    listed = ask("/session_groups", startIndex=0, sliceSize=50, allowedStatuses=states, colParams=columns)
    return [
        (s["name"], g["hparams"], {m["name"]["tag"]: m["value"] for m in s.get("metricValues", [])})
        for g in listed.get("sessionGroups", [])
        for s in g["sessions"]
    ]
