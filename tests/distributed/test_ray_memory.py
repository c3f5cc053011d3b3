"""Memory runs out on one of the workers: all take smaller bites together, or all end with advice, once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from ray_line import alone, assert_same_weights, many, on_workers, weights
from ray_tasks import FineLine, HungryRankOne
from run_helpers import rows

from cabruca.cli.main import main
from cabruca.distributed import ray_train
from cabruca.preparing import Recipe

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.mark.slow  # tests/numerics/test_equivalence_stages.py has it on ranks without Ray
def test_all_ranks_shrink_where_one_runs_short(tmp_path: Path) -> None:
    """Eight pictures are two times four on two workers; the second has room for two."""
    config = many(tmp_path, training__num_epochs=2, training__on_oom="shrink", data__batch_size=8)
    assert on_workers(config, task=HungryRankOne).state == "finished"
    alone(config, task=FineLine)
    assert_same_weights(weights(config), weights(config, "alone"))
    cut = [row["memory/batch_size"] for row in rows(tmp_path / "many" / "metrics.jsonl") if "time/epoch_s" in row]
    assert cut == [4, 4]
    log = (tmp_path / "many" / "train.log").read_text()
    told = (
        "memory ran out in optimizer step 1 (worker 1: CUDA out of memory): batch_size 8 -> 4, accumulation 1 -> 2, "
        "effective batch 8 as before"
    )
    assert log.count(told) == 1
    assert "going on" not in log


@pytest.mark.slow
def test_a_run_that_may_not_shrink_ends_with_advice_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person gives the command; three more attempts would be allowed."""
    monkeypatch.setattr(ray_train, "recipe_of", lambda _: Recipe(HungryRankOne, lambda _: ()))
    config = many(tmp_path, data__batch_size=8)
    file = tmp_path / "line.yaml"
    file.write_text(yaml.safe_dump(config.to_dict()))
    result = CliRunner().invoke(main, ["train", "--config", str(file), "--workers", "2", "--quiet"])
    assert result.exit_code == 2, result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("cabruca: error: ")]
    assert len(said) == 1
    assert said[0].startswith(
        "cabruca: error: out of memory on cpu in optimizer step 1 (worker 1: CUDA out of memory): batch_size 8 x 512 "
        "px tiles does not fit; give --batch-size 4 --grad-accum 2 (the effective batch stays 8), or --set "
        "training.on_oom=shrink, which does it by itself; or "
    )
    log = (tmp_path / "many" / "train.log").read_text()
    assert log.count("workers: rank 0 is process") == 1, "nobody tried again"
    assert "going on" not in log
