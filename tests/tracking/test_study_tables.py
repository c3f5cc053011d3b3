"""The leaderboard: a row a trial whatever its state, best first, 80 columns."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from drawn_study import LITE, METRIC, TRIALS, drawn_study

from cabruca.config.study import Study
from cabruca.tracking.files import to_json
from cabruca.tracking.study_events import Journal, read
from cabruca.tracking.study_state import StudyState
from cabruca.tracking.study_tables import (
    failures,
    heading_text,
    leaderboard_csv,
    leaderboard_table,
    leaderboard_text,
    records_of,
    short_names,
)


@pytest.fixture
def drawn(tmp_path: Path) -> tuple[Study, StudyState]:
    study, study_dir = drawn_study(tmp_path)
    return study, read(study_dir.results)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_header_and_a_row_a_trial_whatever_its_state(drawn: tuple[Study, StudyState]) -> None:
    text = leaderboard_csv(*drawn)
    found = rows(text)
    assert len(text.splitlines()) == 1 + len(drawn[1].trials)
    assert {row["state"] for row in found} == {"finished", "stopped", "failed", "interrupted", "running", "waiting"}
    # best first; no value after them; the failed one last, with its value but no rank
    assert [(row["rank"], row["trial"]) for row in found] == [
        *(("1", "2"), ("2", "0"), ("3", "6"), ("4", "3"), ("5", "5"), ("6", "1")),
        *(("", "7"), ("", "4")),
    ]
    first = found[1]  # trial 0 was best at epoch 8, not at its last
    assert (first[METRIC], first["best_epoch"], first[f"last {METRIC}"]) == ("0.615", "8", "0.612")
    assert (first["optimizer.lr"], first["model.backbone"], first["epoch"]) == ("0.0005", LITE, "9")
    assert [row["stopped_at_rung"] for row in found if row["state"] == "stopped"] == ["3", "1"]
    assert "TrainingDiverged" in found[-1]["reason"]


def test_csv_of_an_empty_study_is_its_header(drawn: tuple[Study, StudyState]) -> None:
    assert leaderboard_csv(drawn[0], StudyState()).splitlines() == [
        f"rank,trial,state,epoch,{METRIC},best_epoch,last {METRIC},stopped_at_rung,elapsed_s,memory_mb,retry_of,reason"
    ]


def test_a_reason_with_commas_and_lines_stays_one_cell_and_lists_are_json(tmp_path: Path) -> None:
    study, study_dir = drawn_study(tmp_path)
    journal = Journal(study_dir.results)
    journal.append({"event": "asked", "trial": 8, "params": {"model.heads": ["semantic"], "optimizer.lr": None}})
    reason = 'RuntimeError: "a", b\nc'
    journal.append({"event": "ended", "trial": 8, "state": "failed", "epoch": 0, "values": None, "reason": reason})
    found = rows(leaderboard_csv(study, journal.state))
    last = next(row for row in found if row["trial"] == "8")
    assert last["reason"] == reason
    assert (last["model.heads"], last["optimizer.lr"], last["model.backbone"]) == ('["semantic"]', "null", "")


def test_the_table_fits_80_columns_and_shows_each_trial(drawn: tuple[Study, StudyState]) -> None:
    lines = leaderboard_text(*drawn).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["#", "trial", "state", "epoch", "mAP_50", "best", "time", "rung", "lr", "backbone"]
    assert lines[2].split() == ["1", "2", "finished", "9/9", "0.7123", "0.7123@9", "3m00", "0.0019", LITE[:16]]
    assert len(lines) == 2 + len(drawn[1].trials)


def test_parameters_without_room_are_named_below(tmp_path: Path) -> None:
    study, study_dir = drawn_study(tmp_path)
    journal = Journal(study_dir.results)
    params = {f"loss.{head}_weight": 0.123456789 for head in ("instance", "semantic", "crown", "density")}
    journal.append({"event": "asked", "trial": 8, "params": params})
    text = leaderboard_text(study, journal.state)
    assert max(map(len, text.splitlines())) <= 80
    assert "parameters without a column: instance_weight" in " ".join(text.split())


def test_a_long_board_keeps_the_best_and_all_that_run(drawn: tuple[Study, StudyState]) -> None:
    table = leaderboard_table(*drawn, most=3)
    assert [str(cell) for cell in table.columns[1].cells] == ["2", "0", "6"]
    assert str(table.caption) == "and 5 more trials; leaderboard.csv has all"


def test_several_metrics_show_the_front_first_and_no_best_column(tmp_path: Path) -> None:
    study, study_dir = drawn_study(
        tmp_path, metric=f"[{METRIC}, val/total_count_accuracy]", mode="[max, max]", scheduler="none"
    )
    state = read(study_dir.results)
    found = rows(leaderboard_csv(study, state))
    # a trial with more of one has less of the other, so all that have not failed are on the front
    ranked = [row for row in found if row["rank"]]
    assert {row["rank"] for row in ranked} == {"1"}
    assert len(ranked) == len(TRIALS) - 1
    assert leaderboard_text(study, state).splitlines()[0].split()[4:6] == ["mAP_50", "total_count"]
    assert "Pareto front of 6" in heading_text(study, state)


def test_heading_counts_and_failures_say_why(drawn: tuple[Study, StudyState]) -> None:
    assert heading_text(*drawn) == (
        "study drawn: 5 of 8 trials done, 1 running, 1 waiting, 1 interrupted, 1 failed; best 0.7123 (trial 2)"
    )
    assert heading_text(*drawn, elapsed_s=750).endswith("; 12m30")
    assert failures(drawn[1]) == ["trial 4 failed after 1 epoch: TrainingDiverged: 20 steps without finite gradients"]


def test_records_are_strict_json(drawn: tuple[Study, StudyState]) -> None:
    found = json.loads(to_json(records_of(*drawn)))
    assert [row["trial"] for row in found] == [2, 0, 6, 3, 5, 1, 7, 4]
    assert found[0]["params"] == {"optimizer.lr": 0.0019, "model.backbone": LITE}
    assert found[6]["best"] == [None]


def test_short_names_stay_apart() -> None:
    assert short_names(["optimizer.lr", "a.type", "b.type"]) == {
        "optimizer.lr": "lr",
        "a.type": "a.type",
        "b.type": "b.type",
    }


def test_choices_in_brackets_are_shown_and_not_read_as_markup(drawn: tuple[Study, StudyState]) -> None:
    study, state = drawn
    state.trials[2].params["model.backbone"] = "[bold]x[/red]"
    assert "[bold]x[/red]" in leaderboard_text(study, state, width=120)
