"""Random numbers that depend on what they are for."""

from __future__ import annotations

import torch

from cabruca.draws import draw_key, uniform


def test_a_number_depends_on_key_and_position_alone() -> None:
    key = draw_key(1, 2, 3)
    assert torch.equal(uniform(key, 1000)[:7], uniform(key, 7))
    assert not torch.equal(uniform(key, 7), uniform(draw_key(1, 3, 2), 7))


def test_the_numbers_are_those_of_every_earlier_release() -> None:
    """Another hash would be another training for every seed: a resumed run would draw other pictures."""
    known = ["0x1.22f9280000000p-1", "0x1.d9a8140000000p-1", "0x1.571bbc0000000p-2", "0x1.43e56c0000000p-1"]
    assert [x.hex() for x in uniform(draw_key(1, 2, 3), 4).tolist()] == known
    assert uniform(draw_key(1, 2, 3), 0).shape == (0,)


def test_keys_of_neighbours_do_not_collide() -> None:
    keys = {draw_key(seed, epoch, index) for seed in range(4) for epoch in range(20) for index in range(200)}
    assert len(keys) == 4 * 20 * 200
    assert all(0 <= k < 1 << 63 for k in keys)


def test_uniform_and_uncorrelated() -> None:
    x, y = uniform(draw_key(0, 0, 0), 200_000), uniform(draw_key(0, 0, 1), 200_000)
    assert abs(float(x.mean()) - 0.5) < 0.003
    assert abs(float(x.var()) - 1 / 12) < 0.001
    counts = torch.histc(x, 100, 0, 1)
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 150  # chi squared, 99 degrees of freedom
    assert abs(float(torch.corrcoef(torch.stack([x, y]))[0, 1])) < 0.01
    assert abs(float(torch.corrcoef(torch.stack([x[1:], x[:-1]]))[0, 1])) < 0.01
    assert float(x.min()) >= 0
    assert float(x.max()) < 1
