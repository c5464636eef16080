"""How a comparison is shown: formats, pictures, the report."""

from __future__ import annotations

import csv
import io
import re

import pytest
from comparing import assert_as_by_hand, by_index, comparison_of, document, named, record, write
from rich.console import Console
from support import caa, parse_strict, read_strict

from caa_cli.config.choices import TABLE_FORMATS
from caa_cli.display import Display
from caa_cli.report.headings import FURTHER, HEADINGS
from caa_cli.report.html import report
from caa_cli.report.latex import latex
from caa_cli.report.tables import as_csv, as_json_rows, best, cells, explanation, grid_rows, markdown, plain

# The names of intervals that are not those of values.
SHORTER = ("median_percent", "overall_median_percent", "common_median_percent")


def test_csv_is_read_back_with_every_digit(comparison):
    rows = list(csv.DictReader(io.StringIO(as_csv(plain(comparison)))))
    assert [row["attack"] for row in rows] == comparison.labels
    for row, figures_, ends in zip(rows, comparison.figures, comparison.intervals, strict=True):
        for name, value in vars(figures_).items():
            assert row[name] == ("" if value is None else str(value))
        assert float(row["success_rate_low"]) == ends["success_rate"][0]


def test_json_is_strict(comparison):
    rows = parse_strict(as_json_rows(plain(comparison)))
    assert [row["attack"] for row in rows] == comparison.labels
    assert rows[0]["best_share"] == comparison.figures[0].best_share


def test_markdown_has_as_many_cells_in_every_row(comparison):
    for table in markdown(comparison).split("\n\n")[:2]:
        rows = table.splitlines()
        assert len(rows) == 2 + len(comparison.attacks)
        assert len({line.count("|") for line in rows}) == 1
        assert re.fullmatch(r"\|---\|(--:\|)+", rows[1])


@pytest.mark.parametrize("width", [50, 64, 80, 97, 120, 200])
def test_a_narrow_terminal_gets_several_tables_with_all_in_them(comparison, width):
    display = Display()
    display.fits_width = True
    display.out = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True, highlight=False)
    rows = [
        [label, *(f"{value}\n{spread}" if spread else value for value, spread in row)]
        for label, row in zip(comparison.labels, cells(comparison), strict=True)
    ]
    display.grid("title", ["attack", *(heading.text for heading in HEADINGS)], rows, "caption")
    shown = display.out.file.getvalue()
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in shown
    for heading in HEADINGS:
        assert all(word in shown for word in heading.text.split())
    for row in cells(comparison):
        for value, spread in row:
            assert re.search(rf"(^|\s){re.escape(value)}(\s|$)", "\n".join(lines)), value
            assert spread in shown
    assert "".join(shown.split()).count(comparison.labels[0]) >= 1


@pytest.mark.parametrize(("width", "longest"), [(100, 28), (80, 8)])
def test_the_table_fits_a_terminal(width, longest):
    """It is one table, not several, with labels of this length."""
    found = comparison_of(by_index([[2.0, 2.1, None]] * 100))
    display = Display()
    display.out = Console(file=io.StringIO(), width=width, force_terminal=True, no_color=True, highlight=False)
    rows = [["x" * longest, *row[1:]] for row in grid_rows(found)]
    display.grid("title", ["attack", *(heading.text for heading in HEADINGS)], rows, explanation(found))
    shown = display.out.file.getvalue()
    assert sum("───" in line for line in shown.splitlines()) == 1
    assert "∞" in shown
    assert len(explanation(found)) < 300


def test_what_looks_the_same_is_as_good_and_nothing_is_minus_zero():
    """Radii 0.0001 apart in a column of three digits, and an excess of −0.001%."""
    found = comparison_of(by_index([[1.0, 1.0001, 1.5], [1.0, 1.0001, 1.5]]))
    radius = next(heading for heading in HEADINGS if heading.figure == "overall_median_radius")
    assert [row[0][0] for row in cells(found, [radius])] == ["1.000", "1.000", "1.500"]
    assert best(found, radius) == {0, 1}
    certified = comparison_of([{0: record(0, 0.99999)}])
    percent = next(heading for heading in HEADINGS if heading.figure == "overall_median_percent")
    assert cells(certified, [percent])[0][0][0] == "0"


def test_a_negative_number_has_a_minus_and_no_hyphen():
    found = comparison_of(by_index([[1.0, 0.75]]), resamples=100)
    difference = next(heading for heading in FURTHER if heading.figure == "median_radius_difference")
    assert cells(found, [difference])[1][0][0] == "−0.250"
    assert "−0.250" in report(found, found.to_json("complete"))
    assert "$-$0.250" in latex(found)


def test_names_that_mean_something_to_a_format_are_escaped(comparison):
    odd = named(comparison_of(by_index([[1.0]])), "a|b_c&<d>")
    assert r"a\|b_c" in markdown(odd)
    assert r"a\textbar{}b\_c\&\textless{}d\textgreater{}" in latex(odd)
    assert next(csv.DictReader(io.StringIO(as_csv(plain(odd)))))["attack"] == "a|b_c&<d>"
    page = report(odd, odd.to_json("complete"))
    assert "a|b_c&amp;&lt;d&gt;" in page
    assert "<d>" not in page


def test_a_comparison_from_the_command_line(tmp_path):
    """All formats, the document and the page of two files; the document's table follows from its examples."""
    one, two = ({i: record(i, r) for i, r in enumerate(radii)} for radii in ([1.5, 2.0, None], [1.4, 2.5, 3.0]))
    files = [
        write(tmp_path / "a.json", document(list(one.values()))),
        write(tmp_path / "b.json", document(list(two.values()), surrogate="gumbel")),
    ]
    result = caa("compare", *files, "--output", tmp_path / "c.json", "--html", tmp_path / "c.html")
    assert result.exit_code == 0, result.output
    found = read_strict(tmp_path / "c.json")
    assert list(found["attacks"]) == ["caa", "caa:surrogate=gumbel"]
    assert found["status"] == "complete"
    assert found["summary"]["broken_by_all"] == 2
    assert found["summary"]["broken_by_any"] == 3
    assert_as_by_hand(found)
    again = parse_strict(caa("compare", tmp_path / "c.json", "--bootstrap", "40", "--json").stdout)
    for attack in again["attacks"].values():
        assert attack["intervals"].keys() - attack.keys() == set(SHORTER)
        assert all(attack["intervals"][old] == attack["intervals"][f"{old}_over_certified"] for old in SHORTER)
    assert "caa:surrogate=gumbel" in result.stdout
    assert "3 eligible of 3 images" in result.stdout
    for name in TABLE_FORMATS[1:]:
        shown = caa("compare", *files, "--format", name, "--quiet")
        assert shown.exit_code == 0, shown.output
        assert shown.stdout
        assert shown.stderr == ""
    assert found["config"].pop("html") == str(tmp_path / "c.html")
    as_document = caa("compare", *files, "--json")
    again = parse_strict(as_document.stdout)
    assert {**again, "created": None} == {**found, "created": None}
    assert (tmp_path / "c.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
