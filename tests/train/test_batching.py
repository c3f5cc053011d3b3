"""The cut of an epoch, for every number of samples, ranks and micro-batches."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cabruca.errors import ConfigError, DataError
from cabruca.train.batching import BatchPlan, epoch_order


def test_the_order_is_a_permutation_that_depends_on_seed_and_epoch_alone() -> None:
    orders = {(s, e): epoch_order(s, e, 200) for s in range(3) for e in range(3)}
    assert all(sorted(order) == list(range(200)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 9
    assert epoch_order(1, 2, 200) == orders[1, 2]


def test_every_sample_comes_first_equally_often() -> None:
    firsts = [epoch_order(0, epoch, 5)[0] for epoch in range(2000)]
    assert all(abs(firsts.count(i) - 400) < 4 * (2000 * 0.2 * 0.8) ** 0.5 for i in range(5))


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 60), per_rank=st.integers(1, 4), accumulation=st.integers(1, 4), world=st.integers(1, 4))
def test_every_sample_is_learnt_once_whatever_the_cut(n: int, per_rank: int, accumulation: int, world: int) -> None:
    order = epoch_order(0, 0, n)
    plans = [BatchPlan(n, per_rank * world, accumulation, world, rank) for rank in range(world)]
    seen: list[int] = []
    for step in range(plans[0].steps):
        shares = [plan.micro_batches(order, step) for plan in plans]
        pictures = [i for share in shares for micro in share for i in micro]
        assert len(pictures) == plans[0].pictures(step) > 0
        # the pictures of a step do not depend on ranks or micro-batches, only their grouping does
        start = step * plans[0].effective_batch
        assert sorted(pictures) == sorted(order[start : start + plans[0].effective_batch])
        sizes = [sum(len(micro) for micro in share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert all(0 < len(micro) <= per_rank for share in shares for micro in share)
        seen += pictures
    assert sorted(seen) == list(range(n))


def test_a_rank_without_a_share_has_no_batch() -> None:
    plans = [BatchPlan(13, batch_size=4, accumulation=2, world_size=2, rank=rank) for rank in range(2)]
    assert [len(plan.micro_batches(range(13), 1)) for plan in plans] == [2, 1]
    assert [plan.pictures(1) for plan in plans] == [5, 5]


@pytest.mark.parametrize(
    ("batch", "world", "remedy"), [(6, 4, "use 4 or 8"), (3, 4, "use 4"), (9, 2, "use 8 or 10"), (1, 8, "use 8")]
)
def test_a_batch_that_does_not_divide_says_what_would(batch: int, world: int, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"batch_size {batch} does not divide over {world} workers; {remedy}$"):
        BatchPlan(10, batch, world_size=world)


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(DataError, match="0 samples"):
        BatchPlan(0, 4)


def test_the_arithmetic_is_printed() -> None:
    text = BatchPlan(13, 4, accumulation=2, world_size=2).describe()
    assert text == (
        "13 pictures an epoch / (batch_size 4 x accumulation 2 = 8) = 2 optimizer steps, the last of 5; "
        "2 pictures a forward pass on each of 2 workers"
    )
    assert "last" not in BatchPlan(16, 4, 2).describe()
