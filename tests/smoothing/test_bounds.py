"""Intervals and radii against published values, independent implementations, and simulation."""

from __future__ import annotations

from pkgutil import resolve_name

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prescribed import interval
from scipy import stats

from caa_cli.config.bounds import BOUNDS
from caa_cli.smoothing.bounds import (
    Separation,
    clopper_pearson_lower,
    clopper_pearson_upper,
    cp_bonferroni,
    goodman,
    leader,
    separation,
)

SIMULTANEOUS = [name for name, spec in BOUNDS.items() if not spec.one_sided]
ASYMPTOTIC = {"goodman"}

# (bound, counts, total, alpha, lower bounds, upper bounds), published or worked out by hand.
WORKED = [
    (
        "goodman",
        [91, 49, 37, 43],
        220,
        0.05,
        [0.33420248, 0.16085875, 0.11455134, 0.13746901],
        [0.49783321, 0.2998874, 0.24011208, 0.27023577],
    ),
    # n votes of n: pⁿ = alpha/2K.
    ("cp-bonferroni", [1000, 0], 1000, 0.05, [0.0125**0.001, 0.0], [1.0, 1 - 0.0125**0.001]),
]


@pytest.mark.parametrize(("bound", "counts", "total", "alpha", "lower", "upper"), WORKED)
def test_bounds_have_the_values_published_or_worked_out_by_hand(bound, counts, total, alpha, lower, upper):
    np.testing.assert_allclose(resolve_name(BOUNDS[bound].bounds)(counts, total, alpha), (lower, upper), atol=5e-9)


def test_every_simultaneous_bound_has_a_worked_value():
    assert {row[0] for row in WORKED} == set(SIMULTANEOUS)


def test_goodman_radius_of_a_unanimous_vote():
    votes = np.array([1500] + [0] * 9)
    radius = separation(votes, 1500, 0, alpha=0.005, bound="goodman").radius(sigma=1.0)
    assert radius == pytest.approx(2.4084, abs=5e-5)


@pytest.mark.parametrize(
    ("count", "expected"), [(100_000, 3.8114565634), (99_000, 2.2899999552), (60_000, 0.2409447922)]
)
def test_cohens_radius(count: int, expected: float):
    votes = np.array([count, 100_000 - count])
    radius = separation(votes, 100_000, 0, alpha=0.001, bound="clopper-pearson").radius(sigma=1.0)
    assert radius == pytest.approx(expected, abs=1e-8)


@given(n=st.integers(1, 100_000), share=st.floats(0, 1), alpha=st.floats(1e-6, 0.5))
def test_clopper_pearson_solves_its_defining_equations(n: int, share: float, alpha: float):
    k = round(share * n)
    lower, upper = float(clopper_pearson_lower(k, n, alpha)), float(clopper_pearson_upper(k, n, alpha))
    assert 0 <= lower <= k / n <= upper <= 1
    if k > 0:
        assert stats.binom.sf(k - 1, n, lower) == pytest.approx(alpha, rel=1e-6)
    if k < n:
        assert stats.binom.cdf(k, n, upper) == pytest.approx(alpha, rel=1e-6)


@pytest.mark.parametrize("n", [100, 15_000, 10**6])
@pytest.mark.parametrize("k", [0, 1, 10])
@pytest.mark.parametrize("alpha", [1e-5, 1e-7, 1e-9])
def test_few_votes_of_many_at_the_levels_of_a_thousand_classes(n: int, k: int, alpha: float):
    """SciPy before 1.12 gave a bound thousands of times too large here."""
    upper = float(clopper_pearson_upper(k, n, alpha))
    assert stats.binom.cdf(k, n, upper) == pytest.approx(alpha, rel=1e-5)
    lower = float(clopper_pearson_lower(n - k, n, alpha))
    assert lower == pytest.approx(1 - upper, abs=1e-9)


def test_a_single_vote_bounds_its_class_away_from_0():
    """P(no vote in n) = (1 − p)ⁿ gives the bounds of 1 and of n − 1 votes in closed form."""
    assert float(clopper_pearson_lower(1, 20, 0.01)) == pytest.approx(1 - 0.99 ** (1 / 20), rel=1e-9)
    assert float(clopper_pearson_upper(19, 20, 0.01)) == pytest.approx(0.99 ** (1 / 20), rel=1e-9)


@given(
    votes=st.lists(st.integers(0, 5000), min_size=2, max_size=12).filter(lambda v: sum(v) > 0),
    abstained=st.integers(0, 100),
    alpha=st.floats(1e-5, 0.4),
)
def test_simultaneous_intervals_hold_the_observed_shares(votes: list[int], abstained: int, alpha: float):
    total = sum(votes) + abstained
    for name in SIMULTANEOUS:
        lower, upper = resolve_name(BOUNDS[name].bounds)(votes, total, alpha)
        shares = np.array(votes) / total
        assert (lower >= 0).all()
        assert (upper <= 1).all()
        assert (lower <= shares + 1e-12).all()
        assert (upper >= shares - 1e-12).all()


@given(votes=st.lists(st.integers(0, 500), min_size=2, max_size=6).filter(lambda v: sum(v) > 0))
def test_cp_bonferroni_shares_alpha_out_over_both_tails_of_all_classes(votes: list[int]):
    n, tail = sum(votes), 0.02 / (2 * len(votes))
    for k, lower, upper in zip(votes, *cp_bonferroni(votes, n, 0.02), strict=True):
        assert lower == pytest.approx(stats.beta.ppf(tail, k, n - k + 1) if k else 0.0, rel=1e-9)
        assert upper == pytest.approx(stats.beta.ppf(1 - tail, k + 1, n - k) if k < n else 1.0, rel=1e-9)


@given(
    votes=st.lists(st.integers(0, 3000), min_size=3, max_size=10).filter(lambda v: sum(v) > 0),
    bound=st.sampled_from(sorted(BOUNDS)),
    sigma=st.floats(0.01, 10),
)
def test_a_radius_is_positive_exactly_when_confident(votes: list[int], bound: str, sigma: float):
    found = separation(np.array(votes), sum(votes), leader(votes), 0.005, bound)
    radius = found.radius(sigma)
    assert np.isfinite(radius)
    assert radius >= 0
    assert (radius > 0) == bool(found.confident)


def test_batches_agree_with_single_counts():
    counts = np.random.default_rng(0).integers(0, 500, size=(6, 5))
    total, chosen = counts.sum(axis=1), leader(counts)
    for bound in BOUNDS:
        together = separation(counts, total, chosen, 0.01, bound).radius(0.5)
        alone = [separation(c, t, k, 0.01, bound).radius(0.5) for c, t, k in zip(counts, total, chosen, strict=True)]
        np.testing.assert_array_equal(together, alone)


def test_against_one_class_only_that_class_counts():
    votes = np.array([400, 450, 150])
    assert not separation(votes, 1000, 1, 0.005, "goodman", against=0).confident
    assert separation(votes, 1000, 1, 0.005, "goodman", against=2).confident


@pytest.mark.parametrize("bound", BOUNDS)
def test_each_name_stands_for_its_own_intervals(bound: str):
    separated = separation([600, 300, 100], 1000, 0, 0.005, bound)
    lower, _ = interval(600, 1000, 3, 0.005, bound)
    assert separated.lower == pytest.approx(lower, rel=1e-9)
    upper = 1 - lower if BOUNDS[bound].one_sided else interval(300, 1000, 3, 0.005, bound)[1]
    assert separated.upper == pytest.approx(upper, rel=1e-9)


def test_even_bounds_separate_nothing():
    assert not Separation(np.float64(0.5), np.float64(0.5)).confident
    assert separation([700, 300], 1000, 1, 0.005, "goodman").radius(0.5) == 0.0, "nothing is certified, nor less"


def test_the_radius_is_that_of_the_strongest_other_class_wherever_it_stands():
    for votes in ([300, 600, 100], [100, 600, 300]):
        lower, upper = goodman(votes, 1000, 0.005)
        expected = 0.25 * (stats.norm.ppf(lower[1]) - stats.norm.ppf(max(upper[0], upper[2])))
        assert separation(votes, 1000, 1, 0.005, "goodman").radius(0.5) == pytest.approx(expected)


def test_a_single_class_is_refused():
    for bound in BOUNDS:
        with pytest.raises(ValueError, match="two classes"):
            separation([1000], 1000, 0, 0.005, bound)


def test_leader_takes_the_lowest_of_a_tie_and_leaves_out_what_it_is_told_to():
    assert leader([3, 7, 7]) == 1
    assert leader([3, 7, 7], excluding=1) == 2
    assert leader([9, 0, 0], excluding=0) == 1
    np.testing.assert_array_equal(leader([[5, 1], [1, 5]], excluding=[0, 1]), [1, 0])


@pytest.mark.parametrize("bound", sorted(set(SIMULTANEOUS) - ASYMPTOTIC))
@pytest.mark.parametrize("p", [(0.5, 0.3, 0.2), (0.96, 0.02, 0.01, 0.01), (0.1,) * 10])
def test_a_sound_bound_covers_all_classes_at_once(p: tuple[float, ...], bound: str):
    """Simulation: at most alpha of the repeats may miss a class, beyond the simulation's own error."""
    alpha, repeats, n = 0.05, 4000, 300
    counts = np.random.default_rng(1).multinomial(n, p, size=repeats)
    lower, upper = resolve_name(BOUNDS[bound].bounds)(counts, np.full(repeats, n), alpha)
    missed = ((lower > p) | (upper < p)).any(axis=1).sum()
    assert missed <= stats.binom.ppf(0.9999, repeats, alpha)


def test_the_certified_radius_of_a_linear_model_is_seldom_beyond_its_boundary():
    """At distance D from the plane p = Φ(D/σ); a radius above D must be rarer than alpha (Goodman: about it)."""
    alpha, repeats, n, sigma, distance = 0.005, 40_000, 1500, 0.5, 0.4
    p = stats.norm.cdf(distance / sigma)
    votes = np.random.default_rng(2).binomial(n, p, size=repeats)
    counts = np.stack([votes, n - votes], axis=1)
    for bound in BOUNDS:
        radius = separation(counts, np.full(repeats, n), np.zeros(repeats, int), alpha, bound).radius(sigma)
        too_far = int((radius > distance).sum())
        assert too_far <= stats.binom.ppf(0.9999, repeats, alpha), f"{bound}: {too_far} of {repeats}"


@pytest.mark.parametrize("name", ["wilson", "goodmann"])
def test_an_unknown_bound_raises(name: str):
    """A name that falls through to some other bound would promise what nobody proved."""
    with pytest.raises(KeyError, match=name):
        separation([9, 1], 10, 0, 0.05, name)
