"""What an example is shown depends on its key alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from caa_cli.smoothing.noise import Key, NoiseSource, Purpose

SHAPE = (1, 28, 28)


def draw(key: Key, start: int, count: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    out = torch.empty(1, count, *shape)
    NoiseSource(shape, torch.device("cpu")).gaussian(out, [key], start, 0.5)
    return out[0]


@settings(max_examples=25)
@given(
    start=st.integers(0, 300),
    count=st.integers(1, 200),
    cut=st.integers(1, 199),
    shape=st.sampled_from([SHAPE, (3, 5, 5)]),  # the generator fills 16 values at a time
)
@example(start=0, count=10, cut=5, shape=(3, 5, 5))
@example(start=4, count=8, cut=4, shape=(1, 65, 65))
def test_any_cut_of_a_stream_gives_the_same_samples(start: int, count: int, cut: int, shape: tuple[int, ...]):
    key = Key(3, 7, Purpose.SEARCH, 2)
    whole = draw(key, 0, 512, shape)[start : start + count]
    cut = min(cut, count)
    parts = [draw(key, start, cut, shape)]
    if cut < count:
        parts.append(draw(key, start + cut, count - cut, shape))
    assert torch.equal(torch.cat(parts), whole)


def test_every_part_of_a_key_matters():
    purposes = Purpose.SELECTION, Purpose.SEARCH, Purpose.VERIFICATION
    keys = [Key(*parts) for parts in itertools.product((0, 1), (0, 5), purposes, (0, 1, 32), (0, 1))]
    first = {draw(key, 0, 1).flatten()[0].item() for key in keys}
    assert len(first) == len(keys)
    assert len({key.block_seed(block) for key in keys for block in range(50)}) == 50 * len(keys)


def test_no_two_purposes_share_a_sample():
    first = {draw(Key(0, 0, purpose), 0, 1).flatten()[0].item() for purpose in Purpose.__members__.values()}
    assert len(first) == len(Purpose.__members__)


def test_rows_belong_to_their_keys():
    keys = [Key(0, index, Purpose.SEARCH) for index in (4, 9)]
    together = torch.empty(2, 100, *SHAPE)
    NoiseSource(SHAPE, torch.device("cpu")).gaussian(together, keys, 0, 0.5)
    for row, key in zip(together, keys, strict=True):
        assert torch.equal(row, draw(key, 0, 100))


def test_the_noise_of_several_points_of_an_image_is_drawn_once(monkeypatch: pytest.MonkeyPatch):
    filled: list[Key] = []
    fill = NoiseSource._fill

    def count(self: NoiseSource, out: torch.Tensor, key: Key, *rest: Any) -> None:
        filled.append(key)
        fill(self, out, key, *rest)

    monkeypatch.setattr(NoiseSource, "_fill", count)
    first, second = Key(0, 1, Purpose.SEARCH), Key(0, 2, Purpose.SEARCH)
    out = torch.empty(4, 20, *SHAPE)
    NoiseSource(SHAPE, torch.device("cpu")).gaussian(out, [first, second, first, first], 30, 0.5)
    assert filled == [first, second]
    for row, key in zip(out, [first, second, first, first], strict=True):
        assert torch.equal(row, draw(key, 30, 20))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 224, 224), (2, 3, 5)])
def test_the_noise_is_normal_with_the_deviation_asked_for(shape: tuple[int, ...]):
    count = max(4, 40_000 // torch.Size(shape).numel())
    values = draw(Key(0, 0, Purpose.VERIFICATION), 0, count, shape).flatten()[:40_000]
    assert stats.kstest(values.numpy() / 0.5, "norm").pvalue > 1e-4


def gumbel(key: Key) -> torch.Tensor:
    out = torch.empty(1, 4000, 10)
    NoiseSource(SHAPE, torch.device("cpu")).gumbel(out, [key], 0)
    return out.flatten()


def test_gumbel_draws_have_their_law_and_a_stream_of_their_own():
    """Not the one that the Gaussian draws of the same key come from; it moves on with the key all the same."""
    draws = gumbel(Key(0, 0, Purpose.SEARCH, 3))
    assert stats.kstest(draws.numpy(), "gumbel_r").pvalue > 1e-4
    assert torch.equal(gumbel(Key(0, 0, Purpose.GUMBEL, 3)), draws)
    assert not torch.equal(gumbel(Key(0, 0, Purpose.SEARCH, 4)), draws)
