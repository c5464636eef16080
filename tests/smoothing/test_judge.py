"""Judging votes by tables: the same as `separation` and the margin, to the bit, wherever the counts are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caa_cli.config.bounds import BOUNDS
from caa_cli.config.certificates import CERTIFICATES
from caa_cli.smoothing import judge as module
from caa_cli.smoothing.bounds import leader, separation
from caa_cli.smoothing.judge import CountTable, count_of, judge_of, largest_other, margins_of, strongest_other
from caa_cli.smoothing.margin import bounded, margin_between, margin_per_probability

SIGMA = 0.5


def some_votes(samples: int, classes: int) -> torch.Tensor:
    """Votes of every kind: unanimous, tied, close, with abstentions, none at all."""
    rng = np.random.default_rng(classes)
    drawn = np.concatenate(
        [rng.multinomial(samples, rng.dirichlet(0.3 * np.ones(classes)), size=4) for _ in range(50)]
    )
    edges = np.zeros((3, classes), dtype=np.int64)
    edges[0, 0], edges[1, :2] = samples, samples // 2
    return torch.from_numpy(np.concatenate([drawn, drawn // 2, edges]))


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("alpha", [1e-4, 0.005, 0.999])  # SciPy 1.10 errs on tails below about 1e-6
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_judgement_is_that_of_the_bounds(bound: str, alpha: float, classes: int):
    votes, samples = some_votes(300, classes), 300
    top = torch.from_numpy(leader(votes.numpy()))
    judge = judge_of(samples, alpha, bound, classes)
    count, others = count_of(votes, top), largest_other(votes, top)
    known = separation(votes.numpy(), samples, top.numpy(), alpha, bound)
    assert judge.ahead(count, others).tolist() == known.confident.tolist()
    assert torch.equal(judge.radius(count, others, SIGMA), torch.from_numpy(known.radius(SIGMA)).float())
    rival = leader(votes.numpy(), excluding=top.numpy())
    against = separation(votes.numpy(), samples, rival, alpha, bound, against=top.numpy())
    assert judge.ahead(others, count).tolist() == against.confident.tolist()


@pytest.mark.parametrize("certificate", CERTIFICATES)
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_radius_is_that_of_the_certificate(bound: str, certificate: str):
    votes = some_votes(300, 10)
    top = votes.argmax(dim=1)
    known = separation(votes.numpy(), 300, top.numpy(), 0.01, bound).radius(SIGMA, certificate)
    radius = judge_of(300, 0.01, bound, 10).radius(
        count_of(votes, top), largest_other(votes, top), SIGMA, certificate
    )
    assert torch.equal(radius, torch.from_numpy(known).float())
    assert 0 < int((radius > 0).sum()) < len(radius)


def test_more_samples_than_a_table_holds_are_judged_one_by_one(monkeypatch: pytest.MonkeyPatch):
    table = CountTable(lambda counts: counts / 7.0, 10**7)
    assert table(torch.tensor([[3, 10**7]])).tolist() == [[3 / 7.0, 10**7 / 7.0]]
    votes = some_votes(300, 10)
    top = votes.argmax(dim=1)
    whole, single = judge_of(300, 0.01, "goodman", 10), module.Judge(300, 0.01, "goodman", 10)
    count, others = count_of(votes, top), largest_other(votes, top)
    with monkeypatch.context() as patch:
        patch.setattr(module, "MOST_SAMPLES", 100)
        assert torch.equal(single.radius(count, others, SIGMA), whole.radius(count, others, SIGMA))


def test_a_margin_and_its_slope_are_those_of_the_probabilities():
    votes, samples = some_votes(300, 3), 300
    table, p = margins_of(samples, SIGMA), bounded(votes.numpy() / samples, samples)
    assert torch.equal(table.per_probability(votes), torch.from_numpy(margin_per_probability(p, SIGMA)))
    known = torch.from_numpy(margin_between(p[:, 1], p[:, 0], SIGMA))
    assert torch.equal(table.margin(votes[:, [1, 0]]), known)


def test_the_other_class_with_the_most_votes_may_have_none():
    votes = torch.tensor([[5, 0, 0], [1, 4, 4]])
    assert largest_other(votes, torch.tensor([0, 1])).tolist() == [0, 4]
    assert strongest_other(votes, torch.tensor([0, 1])).tolist() == [1, 2]
    assert count_of(votes, torch.tensor([0, 2])).tolist() == [5, 4]
