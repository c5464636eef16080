"""What a comparison says where the boundary line search hides what a sweep varies."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparing import document, record

from caa_cli.results.comparison import compare
from caa_cli.results.shards.result_file import parse_result_file
from caa_cli.results.shards.run_results import join

# (the search's radius, the verified one) of three images, by the value of step_max.
FIRST, SECOND = [(1.0, 1.0), (2.0, 1.9), (3.0, 2.9)], [(1.2, 1.02), (2.4, 1.92), (3.6, 2.95)]
HIDDEN = {0.2: FIRST, 0.5: SECOND}
NOTE = (
    "the boundary line search hides most of what step-max does to caa: the medians of the searches are up to 20.0% "
    "apart, and 1.1% after it; --finish none compares the searches themselves"
)


def notes(radii=HIDDEN, *, second_of_two=None, **settings):
    parts = []
    for value, pairs in radii.items():
        records = [record(n, after, radius_search=before) for n, (before, after) in enumerate(pairs)]
        own = {"step_max": value, **settings} | ({"overshoot": 1.0 + value} if second_of_two else {})
        parts.append(parse_result_file(Path(f"{value}.json"), document(records, **own)))
    return list(compare(join(parts)).notes)


def test_a_sweep_whose_searches_differ_more_than_their_results_is_told():
    assert notes() == [NOTE]


def test_two_settings_that_vary_are_named_both():
    (note,) = notes(second_of_two=True)
    assert "what overshoot and step-max does to caa" in note


@pytest.mark.parametrize(
    "radii",
    [
        {0.2: FIRST, 0.5: [(1.2, 1.2), (2.4, 2.3), (3.6, 3.5)]},  # the results differ as much
        {0.2: FIRST, 0.5: [(1.01, 1.0), (2.02, 1.9), (3.03, 2.9)]},  # the searches hardly differ
        {0.2: FIRST},  # nothing varies
        {0.2: [(None, None)] * 3, 0.5: SECOND},  # no image that both broke
        {0.2: FIRST[:2], 0.5: SECOND[:2]},  # two images say nothing
    ],
)
def test_else_there_is_no_note(radii):
    assert notes(radii) == []


def test_without_a_line_search_nothing_is_hidden():
    assert notes(finish="none") == []


def test_images_that_a_value_did_not_break_do_not_count():
    """With the last images the medians of the searches would be far apart; one value did not break them."""
    level = [(1.0, 1.0)] * 3
    radii = {0.2: [*level, (9.0, 2.0), (9.0, 2.0), (9.0, 2.0), (9.0, 2.0)], 0.5: [*level, *[(None, None)] * 4]}
    assert notes(radii) == []
