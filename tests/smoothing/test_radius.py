"""The certified radii: published values, a search in many digits, and what all certificates have in common."""

from __future__ import annotations

import time
from pkgutil import resolve_name

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import exp, log, mp, mpf, sqrt
from scipy.stats import norm

from caa_cli.config.certificates import CERTIFICATES
from caa_cli.smoothing.radius import cohen, lecuyer, li

everyone = pytest.mark.parametrize("name", CERTIFICATES)
shares = st.floats(0.0, 1.0)


def radius_of(name: str):
    return resolve_name(CERTIFICATES[name].radius)


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (0.9, 0.1, {"cohen": 1.2816, "li": 1.0319, "lecuyer": 0.3903}),
        (0.99, 0.01, {"cohen": 2.3263, "li": 1.9080, "lecuyer": 0.5549}),
        (0.6, 0.3, {"cohen": 0.3889, "li": 0.3257, "lecuyer": 0.1064}),
    ],
)
@everyone
def test_radii_have_the_values_worked_out_from_the_papers(name: str, lower: float, upper: float, expected: dict):
    assert float(radius_of(name)(lower, upper)) == pytest.approx(expected[name], abs=5e-5)


def peak(of, low, high) -> float:
    """The maximum of a function by ever finer grids."""
    for _ in range(14):
        grid = [low + (high - low) * step / 40 for step in range(41)]
        values = [of(x) for x in grid]
        best = values.index(max(values))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, 40)]
    return float(max(values))


# (a, b): even odds, a third class, close together, all but certain, and a rare runner-up.
PAIRS = [(0.8, 0.2), (0.5, 0.1), (0.3, 0.2999), (0.5000005, 0.4999995), (1 - 1e-7, 1e-7), (0.2, 1e-6), (0.999, 1e-5)]


@pytest.mark.parametrize(("lower", "upper"), PAIRS)
def test_the_maxima_are_those_of_a_search_in_forty_digits(lower: float, upper: float):
    with mp.workdps(40):
        a, b = mpf(lower), mpf(upper)

        def divergence(log_t):
            t = exp(log_t)
            mean = ((a**-t + b**-t) / 2) ** (-1 / t)
            return -log(1 - a - b + 2 * mean) / (1 + t)

        def private(s):
            delta = (a - b) / 2 * exp(-s)
            ratio = (sqrt(delta**2 + 4 * b * (a - delta)) - delta) / (2 * b)
            return min(mpf(1), log(max(ratio, mpf(1)))) / sqrt(2 * log(mpf("1.25") / delta))

        assert float(li(lower, upper)) == pytest.approx((2 * peak(divergence, mpf(-32), mpf(3))) ** 0.5, abs=1e-10)
        assert float(lecuyer(lower, upper)) == pytest.approx(peak(private, mpf("1e-12"), mpf(20)), abs=1e-10)


@everyone
@given(one=shares, other=shares, more=st.floats(0.0, 0.1))
def test_no_radius_is_larger_than_cohens_and_better_votes_never_shorten_it(name, one, other, more):
    radius = radius_of(name)
    lower, upper = max(one, other), min(one, other, 1.0 - max(one, other))
    found = float(radius(lower, upper))
    assert 0.0 <= found <= float(cohen(lower, upper)) * (1 + 1e-12)
    assert (found > 0.0) == (lower > upper) or lower - upper < 1e-12
    assert float(radius(min(lower + more, 1.0), upper)) >= found * (1 - 1e-9)
    assert float(radius(lower, max(upper - more, 0.0))) >= found * (1 - 1e-9)


@everyone
def test_without_a_lead_there_is_no_radius_and_with_everything_it_has_a_value(name: str):
    radius = radius_of(name)
    np.testing.assert_array_equal(radius([0.3, 0.5, 0.0, 0.5], [0.4, 0.5, 1.0, 0.5]), 0.0)
    assert not np.isnan(radius([1.0, 1.0, 0.9], [0.0, 0.3, 0.0])).any()
    assert radius(0.9, 0.1).dtype == np.float64


@everyone
def test_arrays_give_what_single_numbers_give(name: str):
    radius, rng = radius_of(name), np.random.default_rng(0)
    upper = rng.uniform(0.0, 0.5, (3, 1, 4))
    lower = rng.uniform(0.0, 1.0, (5, 1))
    together = radius(lower, upper)
    assert together.shape == (3, 5, 4)
    assert together[2, 3, 1] == radius(lower[3, 0], upper[2, 0, 1])


@everyone
def test_of_two_classes_of_a_linear_model_no_radius_passes_the_plane(name: str):
    distance = np.linspace(0.001, 6.0, 500)
    found = radius_of(name)(norm.cdf(distance), norm.sf(distance))
    assert (found <= distance * (1 + 1e-9)).all()
    if name == "cohen":
        np.testing.assert_allclose(found, distance, rtol=1e-6)


@everyone
def test_a_table_over_all_counts_takes_no_time(name: str):
    lower = np.linspace(0.5, 1.0, 100_001)[:-1]
    began = time.process_time()
    assert np.isfinite(radius_of(name)(lower, 1.0 - lower)).all()
    assert time.process_time() - began < 1.0
