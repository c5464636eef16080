"""The final table of a run."""

from __future__ import annotations

import pytest
from comparing import record

from caa_cli.results.certificates import CertifyRecord, summarise_certificates
from caa_cli.results.records import ABSTAINED, summarise
from caa_cli.run.reporting import rows_and_fields

ATTACKS = [record(index, 1.5, seconds=60.0) for index in range(5)]
CERTIFICATES = [CertifyRecord(index, 0, ABSTAINED, seconds=60.0) for index in range(5)]


@pytest.mark.parametrize(
    ("seconds", "time"), [(301.0, "5:01 in all"), (62.0, "1:02 since it was resumed, 5:00 for all images")]
)
def test_the_time_of_the_last_part_is_not_shown_as_that_of_all_images(seconds: float, time: str):
    summaries = [
        (ATTACKS, summarise(ATTACKS, seconds), f"{time}, 60.00 s per image; 5,000 forward"),
        (CERTIFICATES, summarise_certificates(CERTIFICATES, 100, seconds), f"{time}; 0 forward"),
    ]
    for records, summary, shown in summaries:
        rows = dict(rows_and_fields(summary, records, None)[0])
        assert rows["time"].startswith(shown)


@pytest.mark.parametrize(
    ("radii", "of_which"), [([1.5, 2.0], ""), ([1.5, None], "of the 1 attacked; "), ([None, None], "")]
)
def test_medians_over_successes_alone_say_so(radii, of_which: str):
    """A failure counts as infinitely far in comparisons, and not at all here."""
    records = [record(index, radius) for index, radius in enumerate(radii)]
    rows = dict(rows_and_fields(summarise(records, 1.0), records, None)[0])
    assert rows["median radius"].endswith(f"  ({of_which}L2, pixels in [0, 1])")
    assert rows["%-C"].endswith(f"  ({of_which}median excess over the certified radius)")


@pytest.mark.parametrize(
    ("drawn", "compared"),
    [(2000, " of at most 3000"), (1980, ", 1.5 times fewer than 3000"), (200, ", 15 times fewer than 3000")],
)
def test_what_one_radius_saves_is_not_rounded_up(drawn: int, compared: str):
    records = [CertifyRecord(0, 0, ABSTAINED, samples=drawn)]
    rows = dict(rows_and_fields(summarise_certificates(records, 3000, 1.0, 0.75), records, 0.75)[0])
    assert rows["samples"] == f"{drawn:,} per image{compared}"


@pytest.mark.parametrize(("images", "shown"), [(1, "0.000, n = 100"), (2, "0.000 ± 0.000 (standard error), n = 100")])
def test_one_image_has_no_standard_error(images: int, shown: str):
    records = CERTIFICATES[:images]
    rows = dict(rows_and_fields(summarise_certificates(records, 100, 1.0), records, None)[0])
    assert rows["average radius"] == shown
