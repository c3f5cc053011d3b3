"""The leaderboard of a study: one row a trial whatever its state, as CSV, as mappings, as a table of 80 columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cabruca.config.study import Study
from cabruca.tracking.short import duration, short_number
from cabruca.tracking.study_state import ENDED, StudyState, TrialPhase, TrialState

STYLES = {"running": "cyan", "finished": "green", "stopped": "dim", "failed": "red", "interrupted": "yellow"}
"""State -> how its row looks on a terminal."""

PHASES: tuple[TrialPhase, ...] = ("running", "waiting", "interrupted", "failed")
"""States that the heading counts."""

WIDEST = 16
"""Characters of a parameter's column."""


@dataclass(frozen=True)
class Row:
    """A trial as the leaderboard shows it.

    Attributes:
        rank: from 1 for those that have a value; with several metrics 1 for the Pareto front, none for the others.
        latest, best: of each metric of the study, None where there is none. best_epoch: by the first metric.
        rung: epoch of the rung at which the scheduler stopped it. reason: why it ended, in words.
    """

    rank: int | None
    trial: int
    state: str
    epoch: int
    latest: tuple[float | None, ...]
    best: tuple[float | None, ...]
    best_epoch: int | None
    rung: int | None
    elapsed_s: float | None
    memory_mb: float | None
    retry_of: int | None
    reason: str
    params: Mapping[str, Any] = field(default_factory=dict)


def rows_of(study: Study, state: StudyState) -> list[Row]:
    """Every trial, best first; then those without a value, those that failed last."""
    ranked = state.ranked(study)
    valued = [trial for trial in ranked if trial.state != "failed" and trial.best(study) is not None]
    if len(study.metrics) > 1:
        front = state.front(study)
        ranks = dict.fromkeys((trial.number for trial in front), 1)
        ranked = [*front, *(trial for trial in ranked if trial.number not in ranks)]
    else:
        ranks = {trial.number: place for place, trial in enumerate(valued, 1)}
    return [_row(study, trial, ranks.get(trial.number)) for trial in ranked]


def _row(study: Study, trial: TrialState, rank: int | None) -> Row:
    last = trial.results[-1].metrics if trial.results else {}
    best, nothing = trial.best(study), (None,) * len(study.metrics)
    return Row(
        rank=rank,
        trial=trial.number,
        state=trial.state,
        epoch=trial.epoch,
        latest=tuple(last.get(metric) for metric in study.metrics),
        best=nothing if best is None else best.values,
        best_epoch=None if best is None else best.epoch,
        rung=trial.rung,
        elapsed_s=trial.elapsed_s,
        memory_mb=trial.memory_mb,
        retry_of=trial.retry_of,
        reason=trial.reason,
        params=trial.params,
    )


def parameter_keys(rows: Sequence[Row]) -> list[str]:
    """Dotted keys of all parameters, in order of first appearance by trial number."""
    return list(dict.fromkeys(key for row in sorted(rows, key=lambda row: row.trial) for key in row.params))


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Dotted key -> its last part, or the whole key where two end alike."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}


def leaderboard_csv(study: Study, state: StudyState) -> str:
    """leaderboard.csv: a header and one row a trial, best first; an empty cell where there is nothing."""
    rows = rows_of(study, state)
    keys = parameter_keys(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_head(study), *keys])
    for row in rows:
        writer.writerow([*_cells(row), *(_cell(row.params.get(key)) if key in row.params else "" for key in keys)])
    return out.getvalue()


def _head(study: Study) -> list[str]:
    values = list(study.metrics)
    last = [f"last {metric}" for metric in values]
    return [
        *("rank", "trial", "state", "epoch", *values, "best_epoch", *last),
        *("stopped_at_rung", "elapsed_s", "memory_mb", "retry_of", "reason"),
    ]


def _cells(row: Row) -> list[Any]:
    elapsed = None if row.elapsed_s is None else round(row.elapsed_s, 1)
    memory = None if row.memory_mb is None else round(row.memory_mb)
    cells = [row.rank, row.trial, row.state, row.epoch, *row.best, row.best_epoch, *row.latest]
    return ["" if cell is None else cell for cell in (*cells, row.rung, elapsed, memory, row.retry_of, row.reason)]


def _cell(value: Any) -> Any:
    return value if isinstance(value, int | float | str) and not isinstance(value, bool) else json.dumps(value)


def records_of(study: Study, state: StudyState) -> list[dict[str, Any]]:
    """The rows as plain mappings, for JSON."""
    return [
        {**{name: getattr(row, name) for name in Row.__dataclass_fields__}, "params": dict(row.params)}
        for row in rows_of(study, state)
    ]


def leaderboard_table(study: Study, state: StudyState, *, width: int = 80, most: int | None = None) -> Table:
    """The leaderboard for a terminal of `width` columns, with as many parameters as there is room for.

    Args:
        most: rows to show; running trials always are, and what is left out is counted in a last line.
    """
    rows = rows_of(study, state)
    shown = _chosen(rows, most)
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    head, cells = _table_cells(study, shown)
    used = 0
    for place, name in enumerate(head):
        table.add_column(Text(name), justify="left" if name == "state" else "right", no_wrap=True)
        used += max(len(row[place]) for row in [head, *cells]) + 1
    columns, left_out = _parameter_columns(rows, shown, room=width - used)
    for name, _ in columns:
        table.add_column(Text(name), no_wrap=True, overflow="ellipsis")
    for place, row in enumerate(shown):
        texts = [*cells[place], *(column[place] for _, column in columns)]
        table.add_row(*map(Text, texts), style=STYLES.get(row.state))  # not str: that would be read as markup
    notes = [f"and {len(rows) - len(shown)} more trials"] if len(shown) < len(rows) else []
    notes += [f"parameters without a column: {', '.join(left_out)}"] if left_out else []
    if notes:
        table.caption = Text("; ".join([*notes, "leaderboard.csv has all"]))
        table.caption_justify = "left"
    return table


def _parameter_columns(
    rows: Sequence[Row], shown: Sequence[Row], *, room: int
) -> tuple[list[tuple[str, list[str]]], list[str]]:
    """Heads and cells of the parameters for which there is room, and the names of the others."""
    keys = parameter_keys(rows)
    names = short_names(keys)
    columns: list[tuple[str, list[str]]] = []
    left_out: list[str] = []
    for key in keys:
        cells = [parameter_value(row.params[key])[:WIDEST] if key in row.params else "" for row in shown]
        name = names[key][:WIDEST]
        wide = max(map(len, [name, *cells])) + 1
        if wide - 1 <= room and not left_out:
            columns.append((name, cells))
            room -= wide
        else:
            left_out.append(names[key])
    return columns, left_out


def _chosen(rows: Sequence[Row], most: int | None) -> list[Row]:
    if most is None or len(rows) <= most:
        return list(rows)
    busy = [row for row in rows if row.state == "running"]
    others = [row for row in rows if row.state != "running"][: max(most - len(busy), 1)]
    return [row for row in rows if row in busy or row in others]


def _table_cells(study: Study, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and cells of the columns before the parameters."""
    several = len(study.metrics) > 1
    values = [metric.removeprefix("val/").removeprefix("time/")[:11] for metric in study.metrics]
    head = ["#", "trial", "state", "epoch", *values, *([] if several else ["best"]), "time", "rung"]
    return head, [_row_cells(row, study.max_epochs, several=several) for row in rows]


def _row_cells(row: Row, max_epochs: int, *, several: bool) -> list[str]:
    best = "-" if row.best[0] is None else f"{short_number(row.best[0])}@{row.best_epoch}"
    return [
        *("" if row.rank is None else str(row.rank), str(row.trial), row.state, f"{row.epoch}/{max_epochs}"),
        *(short_number(value) for value in (row.best if several else row.latest)),
        *([] if several else [best]),
        duration(row.elapsed_s) if row.elapsed_s else "",
        "" if row.rung is None else str(row.rung),
    ]


def parameter_value(value: Any) -> str:
    """Four significant digits of a number, the rest as JSON or plain text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def epochs(count: int) -> str:
    """`1 epoch`, `3 epochs`."""
    return f"{count} epoch{'' if count == 1 else 's'}"


def leaderboard_text(study: Study, state: StudyState, *, width: int = 80, color: bool = False) -> str:
    """The table as lines that stay whole in a pipe. `color`: with a terminal's colours."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, color_system="standard" if color else None, force_terminal=color, legacy_windows=False
    )
    console.print(leaderboard_table(study, state, width=width))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def heading_text(study: Study, state: StudyState, elapsed_s: float | None = None) -> str:
    """`study light_lr: 12 of 20 trials done, 2 running, 1 failed; best 0.7123 (trial 3); 12m30`."""
    counts = {name: state.count(name) for name in PHASES}
    asked = max(study.config.num_trials, state.count())
    parts = [f"{state.count(*ENDED)} of {asked} trials done"]
    parts += [f"{count} {name}" for name, count in counts.items() if count]
    return "; ".join(
        [f"study {study.config.name}: {', '.join(parts)}", *_best(study, state)]
        + ([duration(elapsed_s)] if elapsed_s is not None else [])
    )


def _best(study: Study, state: StudyState) -> list[str]:
    if len(study.metrics) > 1:
        front = state.front(study)
        return [f"Pareto front of {len(front)}"] if front else []
    best = state.best(study)
    value = None if best is None else best.best(study)
    return [] if best is None or value is None else [f"best {short_number(value.value)} (trial {best.number})"]


def failures(state: StudyState) -> list[str]:
    """A line for each trial that failed: why."""
    failed = [trial for trial in state.trials.values() if trial.state == "failed"]
    return [f"trial {trial.number} failed after {epochs(trial.epoch)}: {trial.reason}" for trial in failed]
