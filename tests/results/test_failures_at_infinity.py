"""The figures of a comparison that an attack can't improve by failing: overall medians, optimality, a reference."""

from __future__ import annotations

import math

import pytest
from comparing import by_index, comparison_of, record, tables
from hypothesis import given

from caa_cli.errors import UsageError
from caa_cli.results.metrics import figures


def test_the_median_over_all_images_puts_failures_at_infinity():
    """Three in eight are attacked nearby; over its successes alone this attack looks the nearer one."""
    records = by_index([[2.0, 1.0 if i < 3 else None] for i in range(8)])
    strong, weak = figures(records, range(8))
    assert (strong.median_radius, weak.median_radius) == (2.0, 1.0)
    assert (strong.overall_median_radius, weak.overall_median_radius) == (2.0, math.inf)
    assert weak.overall_median_percent == math.inf
    document = comparison_of(records).to_json("complete")
    assert list(document["attacks"].values())[1]["overall_median_radius"] is None


def test_an_image_without_a_certified_radius_has_no_percentage_even_where_the_attack_fails():
    records = [record(0, 2.0), record(1, 4.0), record(2, None, certified=0.0), record(3, None, certified=0.0)]
    (only,) = figures([dict(enumerate(records))], range(4))
    assert only.overall_median_percent == 200.0
    assert only.overall_median_radius == math.inf


def test_a_median_is_infinite_unless_more_than_half_are_attacked():
    half, more = figures(by_index([[1.0, 1.0], [2.0, 2.0], [None, 3.0], [None, None]]), range(4))
    assert half.overall_median_radius == math.inf
    assert more.overall_median_radius == 2.5


def test_an_attack_against_the_reference():
    """Nearer once, farther twice (once by failing), a tie once and once by two failures; both attacked three."""
    records = by_index([[2.0, 1.0], [2.0, 3.0], [2.0, None], [2.0, 2.0], [None, None]])
    first, second = figures(records, range(5))
    assert (second.nearer_share, second.farther_share, second.tied_share) == (0.2, 0.4, 0.4)
    assert (second.both_attacked, second.median_radius_ratio, second.median_radius_difference) == (3, 1.0, 0.0)
    assert first.nearer_share is first.tied_share is first.both_attacked is first.median_radius_ratio is None
    first, second = figures(records, range(5), reference=1)
    assert (first.nearer_share, first.farther_share, first.tied_share) == (0.4, 0.2, 0.4)
    assert second.nearer_share is None


def test_optimality_of_known_curves():
    """Smallest radii 1 and 3, so d = 3. The best curve has 2 to win of the image at 1; the second attack gets 1."""
    first, second, third = figures(by_index([[1.0, 2.0, None], [3.0, 4.0, None]]), range(2))
    assert (first.optimality, second.optimality, third.optimality) == (1.0, 0.5, 0.0)


def test_optimality_is_not_defined_where_there_is_nothing_to_win():
    assert figures(by_index([[None, None]]), range(1))[0].optimality is None
    assert figures(by_index([[1.0, 2.0], [1.0, None]]), range(2))[0].optimality is None  # d is 1 for all


@given(table=tables)
def test_optimality_is_a_share_and_the_nearest_of_all_has_it_whole(table):
    best = [[min((r for r in image if r is not None), default=None), *image] for image in table]
    first, *others = figures(by_index(best), range(len(table)))
    assert first.optimality in (1.0, None)
    for row in others:
        assert (row.optimality is None) == (first.optimality is None)
        assert row.optimality is None or 0.0 <= row.optimality <= 1.0


@given(table=tables)
def test_an_attack_that_breaks_nothing_changes_no_number_of_the_others_but_the_common_ones(table):
    before = figures(by_index(table), range(len(table)))
    after = figures(by_index([[*image, None] for image in table]), range(len(table)))
    for old, new in zip(before, after, strict=False):
        kept = {name: value for name, value in vars(old).items() if not name.startswith("common")}
        assert kept == {name: vars(new)[name] for name in kept}
    assert after[-1].common == 0


def test_a_reference_that_is_no_attack_is_refused():
    with pytest.raises(UsageError, match="--reference pgd is none of the attacks") as refused:
        comparison_of(by_index([[1.0, 2.0]]), reference="pgd")
    assert refused.value.hint == "use one of: caa, caa:iterations=101"
