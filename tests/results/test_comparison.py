"""The figures of a comparison, from records made here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from comparing import COLUMNS, assert_as_by_hand, by_hand, by_index, comparison_of, document, record, tables
from hypothesis import given
from hypothesis import strategies as st

from caa_cli.report.headings import FURTHER, HEADINGS
from caa_cli.report.tables import cells
from caa_cli.results.comparison import compare
from caa_cli.results.metrics import figures
from caa_cli.results.shards.result_file import parse_result_file
from caa_cli.results.shards.run_results import join
from caa_cli.runtime.sharding import Shard


def known():
    """Two attacks on four images: a tie, one each, and one that nobody breaks."""
    table = [[2.0, 2.0], [1.0, 1.5], [3.0, 2.99], [None, None]]
    return by_index(table), range(4)


def test_figures_of_known_records():
    first, second = figures(*known())
    assert (first.success_rate, second.success_rate) == (0.75, 0.75)
    assert (first.best_share, second.best_share) == (1.5 / 4, 1.5 / 4)
    assert (first.near_best_share, second.near_best_share) == (3 / 4, 2 / 4)
    assert (first.median_radius, second.median_radius) == (2.0, 2.0)
    assert first.common == second.common == 3
    assert first.median_percent == pytest.approx(300.0)  # of 300, 67 and 329
    assert first.forward == 1000
    assert first.backward == 100
    assert first.seconds == 0.5


def test_like_for_like_is_over_what_all_attacks_broke():
    """An attack that only breaks the easy image looks good on its own successes; on common ones it doesn't."""
    records = by_index([[1.0, 1.2], [5.0, None], [6.0, None]])
    strong, weak = figures(records, range(3))
    assert (strong.median_radius, weak.median_radius) == (5.0, 1.2)
    assert (strong.common_median_radius, weak.common_median_radius) == (1.0, 1.2)
    assert strong.common == 1


def test_exactly_one_percent_further_out_is_near_best():
    rows = figures(by_index([[1.0, 1.01, 1.0101]]), range(1))
    assert [row.near_best_share for row in rows] == [1.0, 1.0, 0.0]
    assert [row.best_share for row in rows] == [1.0, 0.0, 0.0]


def test_a_radius_that_was_not_verified_is_no_success():
    """One over a clean image without a certified radius is a success, but no percentage of that."""
    records = [record(0, 2.0), record(1, 1.0, outcome="not_verified"), record(2, 4.0, certified=0.0)]
    (only,) = figures([dict(enumerate(records))], range(3))
    assert (only.success_rate, only.median_radius, only.common) == (pytest.approx(2 / 3), 3.0, 2)
    assert only.median_percent == only.common_median_percent == pytest.approx(100.0)


def test_costs_are_over_all_eligible_images_and_no_others():
    """The median of the seconds and the means of the evaluations, successes or not."""
    cost = [(0.1, 10, 1), (0.2, 20, 2), (3.0, 90, 9), (1000.0, 10**6, 10**6)]
    records = {
        index: record(
            index, None if index % 2 else 1.0, seconds=s, forward_evaluations=forward, backward_evaluations=backward
        )
        for index, (s, forward, backward) in enumerate(cost)
    }
    (only,) = figures([records], range(3))
    assert (only.seconds, only.forward, only.backward) == (0.2, 40, 4)


def test_nothing_eligible_has_no_figures():
    (only,) = figures([{}], [])
    assert only.success_rate is only.best_share is only.median_radius is only.seconds is None
    assert only.common == 0


@given(table=tables)
def test_best_shares_add_up_to_the_images_that_someone_broke(table):
    rows = figures(by_index(table), range(len(table)))
    broken = sum(any(r is not None for r in image) for image in table)
    assert sum(row.best_share for row in rows) == pytest.approx(broken / len(table))
    for row in rows:
        assert row.best_share <= row.near_best_share <= row.success_rate


@given(table=tables, data=st.data())
def test_neither_the_order_of_images_nor_of_attacks_matters(table, data):
    images = data.draw(st.permutations(range(len(table))))
    attacks = data.draw(st.permutations(range(len(table[0]))))
    records = by_index(table)
    straight = figures(records, range(len(table)))
    mixed = figures([records[attack] for attack in attacks], images, reference=attacks.index(0))
    for position, attack in enumerate(attacks):
        for name, value in vars(straight[attack]).items():
            assert getattr(mixed[position], name) == pytest.approx(value, nan_ok=True), name


@given(table=tables, data=st.data())
def test_every_column_of_the_table_follows_from_the_examples(table, data):
    """Recomputed by other code from the document's records, and compared with what is shown. Half a unit of the last
    digit may be rounded either way."""
    number = st.integers(0, 5000)
    records = [
        {
            index: replace(
                mine,
                seconds=data.draw(number) / 97,
                forward_evaluations=data.draw(number),
                backward_evaluations=data.draw(number),
            )
            for index, mine in found.items()
        }
        for found in by_index(table)
    ]
    comparison = comparison_of(records)
    document = comparison.to_json("complete")
    assert_as_by_hand(document)
    headings = (*HEADINGS, *FURTHER)
    assert [heading.text for heading in headings] == list(COLUMNS)
    for row, shown in zip(by_hand(document).values(), cells(comparison, headings), strict=True):
        row["evaluations"] = row["forward_evaluations_an_image"] + row["backward_evaluations_an_image"]
        for (name, factor, digits), (cell, _) in zip(COLUMNS.values(), shown, strict=True):
            value, _, count = cell.partition(" ")
            has_count = name == "median_radius_ratio" and row["both_attacked"] is not None
            assert count == (f"({row['both_attacked']})" if has_count else "")
            if row[name] is None:
                assert value == ("∞" if name.startswith("overall") else "–")
            else:
                assert float(value.replace("−", "-")) == pytest.approx(factor * row[name], abs=0.5001 * 10**-digits)
                assert len(value.partition(".")[2]) == digits
    radii = [[r for r in image if r is not None] for image in table]
    assert document["summary"]["broken_by_any"] == sum(bool(mine) for mine in radii)
    assert document["summary"]["broken_by_all"] == sum(len(mine) == len(table[0]) for mine in radii)


@given(table=tables, count=st.integers(1, 4), data=st.data())
def test_shards_in_any_order_are_the_whole(table, count, data):
    records = by_index(table)
    shards = [
        parse_result_file(
            Path(f"{attack}-{k}.json"),
            document(list(found.values())[k::count], shard=Shard(k, count), iterations=100 + attack),
        )
        for attack, found in enumerate(records)
        for k in range(count)
    ]
    whole = comparison_of(records)
    joined = compare(join(data.draw(st.permutations(shards))), reference=whole.reference)
    assert joined.eligible == whole.eligible
    assert dict(zip(joined.labels, joined.figures, strict=True)) == dict(
        zip(whole.labels, whole.figures, strict=True)
    )
