"""The confidence intervals of a comparison: exact ones of shares, and those by the bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from comparing import by_index, comparison_of

from caa_cli.report.tables import cells
from caa_cli.results.bootstrap import intervals
from caa_cli.results.metrics import columns
from caa_cli.results.proportions import clopper_pearson


def test_bootstrap_is_seeded_paired_and_about_the_estimate():
    # The second attack is the first but 1% further out: paired, its interval moves along exactly.
    table = [[1.0 + i / 50, 1.01 * (1.0 + i / 50)] for i in range(60)]
    found = columns(by_index(table), range(60))
    first, second = intervals(found, 400, seed=1)
    assert intervals(found, 400, seed=1) == [first, second] != intervals(found, 400, seed=2)
    low, high = first["median_radius"]
    assert low < 1.59 < high
    assert second["median_radius"] == (pytest.approx(1.01 * low), pytest.approx(1.01 * high))


@pytest.mark.parametrize("resamples", [0, 300])
def test_an_attack_that_is_never_the_nearest_may_still_be_it_on_other_images(resamples):
    (tied, _) = intervals(columns(by_index([[1.0, 1.0], [1.0, 2.0]]), range(2)), resamples, seed=0)
    assert tied["best_share"] == clopper_pearson(1.5, 2)
    first, second = intervals(columns(by_index([[1.0, 2.0]] * 6), range(6)), resamples, seed=0)
    assert first["best_share"] == clopper_pearson(6, 6)
    assert second["best_share"] == clopper_pearson(0, 6)


def test_the_interval_of_a_share_with_ties_covers():
    """Half of the images are ties of two attacks, a quarter each is won by one: both expect a share of a half."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(1000):
        rows = generator.choice(4, size=12)
        table = [[1.0, 1.0] if row < 2 else [1.0, 2.0] if row == 2 else [2.0, 1.0] for row in rows]
        low, high = intervals(columns(by_index(table), range(12)), 0, seed=0)[0]["best_share"]
        covered += low <= 0.5 <= high
    assert covered >= 950
    assert low < 0.5 < high
    assert (low, high) != (0.0, 1.0)


def test_bootstrap_of_nothing_is_nothing():
    assert set(intervals(columns([{}], []), 10, 0)[0].values()) == {None}
    (only,) = intervals(columns(by_index([[None]] * 7), range(7)), 300, 0)
    assert only["median_radius"] is None
    assert only["overall_median_radius"] == (math.inf, math.inf)
    assert only["optimality"] is None


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [
        (0, 4, (0.0, 1 - 0.025 ** (1 / 4))),  # (1 − p)⁴ = 2.5%
        (4, 4, (0.025 ** (1 / 4), 1.0)),
        (1, 2, (1 - 0.975**0.5, 0.975**0.5)),  # 1 − (1 − p)² = 2.5%, 1 − p² = 2.5%
        (10, 100, (0.04900469, 0.17622260)),  # R's binom.test
    ],
)
def test_clopper_pearson_is_exact(count, total, expected):
    assert clopper_pearson(count, total) == pytest.approx(expected, abs=1e-8)


def test_shares_have_exact_intervals_without_a_bootstrap():
    found = columns(by_index([[1.0, 2.0], [1.0, None], [2.0, 1.0], [None, None]]), range(4))
    _, second = intervals(found, 0, 0)
    assert second == {
        "success_rate": clopper_pearson(2, 4),
        "best_share": clopper_pearson(1, 4),
        "near_best_share": clopper_pearson(1, 4),
        "nearer_share": clopper_pearson(1, 4),
        "farther_share": clopper_pearson(2, 4),
        "tied_share": clopper_pearson(1, 4),
    }


def test_fewer_than_six_images_have_no_bootstrap_interval():
    """Six values hold the median between their ends with 1 − 2/2⁶ = 96.9%, five with 93.8% only."""
    table = [[1.0 + i, 2.0 + i if i < 5 else None] for i in range(6)]
    six, five = intervals(columns(by_index(table), range(6)), 200, 0)
    assert six["median_radius"] is not None
    assert five["median_radius"] is five["median_radius_ratio"] is None
    assert five["overall_median_radius"] is not None
    first = intervals(columns(by_index(table), range(5)), 200, 0)[0]
    assert first["optimality"] is None
    assert six["optimality"] == (1.0, 1.0)


def test_the_interval_of_a_paired_ratio_is_of_the_same_images():
    """The images differ a hundredfold, the attacks by 1%: only a paired interval can tell."""
    table = [[1.0 + i, 1.01 * (1.0 + i)] for i in range(100)]
    _, second = intervals(columns(by_index(table), range(100)), 300, 0)
    assert second["median_radius_ratio"] == pytest.approx((1.01, 1.01))
    low, high = second["median_radius_difference"]
    assert 0.3 < low < 0.505 < high < 0.7


def test_an_interval_between_a_number_and_infinity_is_open():
    """The 97.5% quantile of 30 estimates lies between the two largest, so one that is infinite opens the interval.

    An estimate is infinite where the one failure of seven images is drawn four times, in 1.0% of the resamples: of
    100 intervals 26 are open, and 4 would be if it took two such estimates.
    """
    found = columns(by_index([[1.0 + i / 10 if i < 6 else None] for i in range(7)]), range(7))
    ends = [intervals(found, 30, seed)[0]["overall_median_radius"] for seed in range(100)]
    assert 15 < sum(high == math.inf for _, high in ends) < 40
    assert all(1.0 <= low < high for low, high in ends)


def test_an_interval_of_a_median_may_be_open():
    """Half of the images are attacked: whether the median is finite depends on the images."""
    found = comparison_of(by_index([[1.0 + i / 10 if i < 10 else None] for i in range(20)]), resamples=200)
    low, high = found.intervals[0]["overall_median_radius"]
    assert low < 2.0
    assert high == math.inf
    assert found.to_json("complete")["attacks"]["caa"]["intervals"]["overall_median_radius"] == [low, None]
    assert cells(found)[0][2] == ("∞", f"{low:.3f}–∞")
