"""The keys of a study: lengths of time, sizes, and their tables in docs/tuning.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from study_files import refusal

from cabruca.config.reference import field_comments
from cabruca.config.study_reference import BEGIN, END, put_into, tables
from cabruca.config.study_schema import (
    RepeatConfig,
    ResourcesConfig,
    SamplerConfig,
    StopperConfig,
    StudyConfig,
    read_duration,
    read_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("1.5 h", 5400), ("40", 40), (2.5, 2.5), ("1d", 86400)],
)
def test_lengths_of_time(text: Any, seconds: float) -> None:
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2 weeks", "-1h", "1h x", 0])
def test_what_is_no_length_of_time(text: Any) -> None:
    with pytest.raises(ValueError, match="no length of time"):
        read_duration(text)


@pytest.mark.parametrize(
    ("text", "count"), [("20GB", 20 * 10**9), ("500 mb", 5 * 10**8), ("8GiB", 2**33), ("1.5G", 15 * 10**8), (7, 7)]
)
def test_sizes(text: Any, count: int) -> None:
    assert read_size(text) == count


@pytest.mark.parametrize("section", [StudyConfig, ResourcesConfig, SamplerConfig, StopperConfig, RepeatConfig])
def test_every_key_is_explained_in_place(section: Any) -> None:
    comments = field_comments(section)
    inner = {"resources_per_trial", "sampler", "scheduler"}  # sections, with tables of their own
    assert [name for name in section.model_fields if not comments[name] and name not in inner] == []


def test_the_tables_stand_between_their_marks() -> None:
    page = put_into(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    assert page == f"above\n{BEGIN}\n\n{tables()}\n{END}\nbelow\n"
    assert put_into(page) == page
    for key in (
        "`name`",
        "`sampler.seed`",
        "`scheduler.grace_period`",
        "`repeat_best.top`",
        "`resources_per_trial.gpu`",
    ):
        assert f"| {key} |" in page
    assert "has no place for the keys of a study" in refusal(put_into, "nothing")


def test_the_page_of_studies_is_current() -> None:
    current = (Path(__file__).resolve().parents[2] / "docs" / "tuning.md").read_text(encoding="utf-8")
    assert current == put_into(current), "run: python -m cabruca.config.study_reference docs/tuning.md"
