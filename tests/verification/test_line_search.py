"""The margin along a ray, and the line through a few noisy margins, against the normal law and least squares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prescribed import fewest_votes
from scipy import stats

from caa_cli.config.bounds import BOUNDS
from caa_cli.smoothing.bounds import separation
from caa_cli.verification.claim import Claim
from caa_cli.verification.line_search import Crossing, Margin, margin, margin_to_pass


def crossing(*points: tuple[float, float], error: float = 1e-6) -> Crossing:
    """A line through margins h at distances t, given as (t, h)."""
    line = Crossing()
    for t, h in points:
        line.add(t, Margin(h, error, 1.0))
    return line


def slope(line: Crossing) -> float:
    return 1.0 / (line.solve(spare=0.0, target=1.0) - line.solve(spare=0.0, target=0.0))


@pytest.mark.parametrize("distance", [-0.3, 0.0, 0.4])
@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_the_margin_of_votes_is_the_distance_on_a_linear_model(distance: float, sigma: float):
    n = 1_000_000
    p = stats.norm.cdf(distance / sigma)
    votes = np.array([round(n * (1 - p)), round(n * p)])
    assert margin(votes, n, (1, 0), sigma).h == pytest.approx(distance, abs=2e-3)


def test_the_margin_is_that_of_the_label_and_the_strongest_other_class():
    """A label that leads has a negative margin. Votes of a third class and abstentions only count in the total."""
    votes = np.array([100, 500, 300])
    found = margin(votes, 1000, Claim(1, 3).sides(votes), 0.5)
    assert found.h == pytest.approx(0.25 * (stats.norm.ppf(0.3) - stats.norm.ppf(0.5)))
    assert found.mass == pytest.approx(0.8)


def test_a_unanimous_vote_is_taken_for_half_a_vote_short_of_it():
    found = margin(np.array([0, 1000]), 1000, (1, 0), 0.5)
    assert found.h == pytest.approx(0.5 * stats.norm.ppf(1 - 0.5 / 1000))
    assert np.isfinite(found.error)
    assert found.mass == 1.0


@pytest.mark.parametrize("p", [(0.42, 0.48, 0.10), (0.5, 0.5), (0.05, 0.05, 0.9)])
def test_the_error_of_a_margin_is_its_spread(p: tuple[float, ...]):
    """One label among many classes has nearly independent votes; of two classes each vote moves both."""
    n = 2000
    votes = np.random.default_rng(0).multinomial(n, p, size=3000)
    found = [margin(v, n, (1, 0), 0.5) for v in votes[:, :2]]
    spread = np.std([m.h for m in found])
    assert np.mean([m.error for m in found]) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("spare", [0.0, 1.3])
def test_the_target_margin_is_just_enough_to_pass(bound: str, spare: float):
    n, alpha = 15_000, 0.00125
    h = margin_to_pass(1.0, n, 2, alpha, bound, sigma=0.5, spare=spare)
    p = stats.norm.cdf(h / 0.5)
    wins = np.random.default_rng(0).binomial(n, p, size=20_000)
    counts, zeros = np.stack([wins, n - wins], axis=1), np.zeros(20_000, int)
    passed = separation(counts, np.full(20_000, n), zeros, alpha, bound, against=zeros + 1).confident.mean()
    assert passed == pytest.approx(stats.norm.cdf(spare), abs=0.02)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("mass", [0.8, 1.0])
def test_the_target_margin_spares_standard_errors_of_the_votes(bound: str, classes: int, mass: float):
    """At the target, votes that fall `spare` standard errors of p_k − p_y behind are the fewest that pass. What the
    two classes do not have lies elsewhere: with two classes it abstained."""
    n, alpha, spare, sigma = 15_000, 0.00125, 3.0, 0.25
    both = round(mass * n)
    fewest = (2 * fewest_votes(both, n, classes, alpha, bound) - both) / n
    h = margin_to_pass(mass, n, classes, alpha, bound, sigma, spare)
    # The gap p_k − p_y with this margin, p_k + p_y being the mass.
    low, high = 0.0, mass
    for _ in range(50):
        gap = 0.5 * (low + high)
        p_k, p_y = 0.5 * (mass + gap), max(0.5 * (mass - gap), 0.5 / n)
        behind = 0.5 * sigma * (stats.norm.ppf(min(p_k, 1 - 0.5 / n)) - stats.norm.ppf(p_y)) < h
        low, high = (gap, high) if behind else (low, gap)
    assert gap - spare * np.sqrt((mass - gap**2) / n) == pytest.approx(fewest, abs=2.5 / n)


def test_a_rounded_share_of_the_votes_does_not_move_the_target():
    """1/49 and 48/49 add up to a little less than 1; there are two classes all the same."""
    short = margin_to_pass(1.0 - 1e-12, 15_000, 2, 0.00125, "goodman", 0.5, 0.5)
    assert short == pytest.approx(margin_to_pass(1.0, 15_000, 2, 0.00125, "goodman", 0.5, 0.5), rel=1e-5)


def test_a_line_through_exact_margins_is_the_line():
    line = Crossing()
    for t in (0.9, 1.0, 1.1, 1.2):
        h = 0.6 * (t - 1.05)
        p = stats.norm.cdf(h / 0.5)
        n = 10**7
        line.add(t, margin(np.array([round(n * (1 - p)), round(n * p)]), n, (1, 0), 0.5))
    assert line.solve(spare=0.0, target=0.0) == pytest.approx(1.05, abs=0.005)
    assert line.solve(spare=0.0, target=0.06) == pytest.approx(1.15, abs=0.01)


def test_one_point_leaves_the_slope_at_what_is_known_beforehand():
    line = crossing((1.0, -0.3))
    assert slope(line) == pytest.approx(0.75)
    assert line.solve(spare=0.0, target=0.0) == pytest.approx(1.0 + 0.3 / 0.75)


def test_the_slope_stays_within_what_is_possible():
    assert slope(crossing((1.0, 0.05), (1.2, -0.15))) == pytest.approx(0.2), "falling"
    assert slope(crossing((1.0, -0.05), (1.1, 0.15))) == pytest.approx(1.0), "steeper than a margin can be"


def test_what_is_spared_is_the_lines_own_standard_error():
    line = crossing((1.0, 0.0), error=0.02)
    assert line.solve(spare=2.0, target=0.0) == pytest.approx(1.0 + 2 * 0.02 / 0.75)
    line.add(1.0, Margin(0.0, 0.02, 1.0))
    assert line.solve(spare=2.0, target=0.0) == pytest.approx(1.0 + 2 * 0.02 / np.sqrt(2) / 0.75)


def test_a_unanimous_vote_counts_only_where_no_vote_is_divided():
    """It says which side it is on, not how far away the boundary is."""
    line, n = Crossing(), 500
    line.add(9.0, margin(np.array([0, n]), n, (1, 0), 0.5))
    alone = line.solve(spare=0.0, target=0.0)
    assert 9.0 - 0.5 * 5 / 0.75 < alone < 9.0 - 0.5 * 2 / 0.75
    line.add(1.0, margin(np.array([300, 200]), n, (1, 0), 0.5))
    single = Crossing()
    single.add(1.0, margin(np.array([300, 200]), n, (1, 0), 0.5))
    assert line.solve(spare=1.0, target=0.1) == pytest.approx(single.solve(spare=1.0, target=0.1))


margins = st.tuples(st.floats(0.5, 2.0), st.floats(-0.1, 0.1), st.floats(0.01, 0.1))


@given(points=st.lists(margins, min_size=2, max_size=6))
def test_the_line_is_the_weighted_least_squares_line_with_a_prior_on_its_slope(points):
    """The prior is one more row of the equations: slope = 0.75 ± 0.25."""
    line = Crossing()
    rows, right = [[0.0, 1 / 0.25]], [0.75 / 0.25]
    for t, h, error in points:
        line.add(t, Margin(h, error, 1.0))
        weight = 1 / np.hypot(error, h / 4)  # h may bend away from a line by a quarter of itself
        rows.append([weight, weight * t])
        right.append(weight * h)
    intercept, least_squares = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]
    if 0.2 < least_squares < 1.0:
        assert slope(line) == pytest.approx(least_squares, rel=1e-6)
        assert line.solve(spare=0.0, target=0.05) == pytest.approx((0.05 - intercept) / least_squares, rel=1e-6)


def test_the_mass_is_that_of_the_point_nearest_to_the_boundary():
    line = Crossing()
    for t, h, mass in ((1.0, -0.2, 0.5), (1.3, 0.01, 0.6), (1.6, 0.3, 0.7)):
        line.add(t, Margin(h, 0.02, mass))
    assert line.mass == 0.6
