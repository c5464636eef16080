"""The figures of a comparison, its formats and its pictures, from records made here."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from comparing import assert_as_by_hand, document, record, write
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from support import caa, parse_strict, read_strict

from caa_cli.display import Display
from caa_cli.plan import Shard
from caa_cli.results.bootstrap import intervals
from caa_cli.results.comparison import compare
from caa_cli.results.joining import join
from caa_cli.results.metrics import columns, figures
from caa_cli.results.parts import part_of
from caa_cli.results.pictures import PICTURES, inline_svg, write_picture
from caa_cli.results.report import report
from caa_cli.results.tables import HEADINGS, WRITERS, cells, comma_separated, latex, markdown

# Radii from a small set, so that ties are common.
radius = st.none() | st.sampled_from([1.0, 1.005, 1.5, 2.0, 2.015, 3.0])
tables = st.integers(1, 4).flatmap(
    lambda attacks: st.lists(st.lists(radius, min_size=attacks, max_size=attacks), min_size=1, max_size=12)
)


def by_index(table):
    """Rows of radii, an image a row, as the records of each attack."""
    return [
        {index: record(index, row[attack], certified=0.5 + index / 10) for index, row in enumerate(table)}
        for attack in range(len(table[0]))
    ]


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
    mixed = figures([records[attack] for attack in attacks], images)
    for position, attack in enumerate(attacks):
        for name, value in vars(straight[attack]).items():
            assert getattr(mixed[position], name) == pytest.approx(value, nan_ok=True), name


@settings(deadline=None)
@given(table=tables)
def test_the_table_follows_from_the_examples(table):
    assert_as_by_hand(comparison_of(by_index(table)).to_json("complete"))


def comparison_of(records, resamples=0):
    parts = [
        part_of(Path(f"{n}.json"), document(list(found.values()), iterations=100 + n))
        for n, found in enumerate(records)
    ]
    return compare(join(parts), resamples)


@settings(deadline=None)
@given(table=tables, count=st.integers(1, 4), data=st.data())
def test_shards_in_any_order_are_the_whole(table, count, data):
    records = by_index(table)
    shards = [
        part_of(
            Path(f"{attack}-{k}.json"),
            document(list(found.values())[k::count], shard=Shard(k, count), iterations=100 + attack),
        )
        for attack, found in enumerate(records)
        for k in range(count)
    ]
    joined = compare(join(data.draw(st.permutations(shards))))
    whole = comparison_of(records)
    assert joined.eligible == whole.eligible
    assert dict(zip(joined.labels, joined.figures, strict=True)) == dict(
        zip(whole.labels, whole.figures, strict=True)
    )


def test_bootstrap_is_seeded_paired_and_about_the_estimate():
    # The second attack is the first but 1% further out: paired, its interval moves along exactly.
    table = [[1.0 + i / 50, 1.01 * (1.0 + i / 50)] for i in range(60)]
    found = columns(by_index(table), range(60))
    first, second = intervals(found, 400, seed=1)
    assert intervals(found, 400, seed=1) == [first, second] != intervals(found, 400, seed=2)
    low, high = first["median_radius"]
    assert low < 1.59 < high
    assert second["median_radius"] == (pytest.approx(1.01 * low), pytest.approx(1.01 * high))
    assert first["best_share"] == (1.0, 1.0)


def test_bootstrap_of_the_mean_has_the_binomial_spread():
    """Success of 50 of 100 images: 1.96 · √(0.25/100) = 0.098 to either side."""
    found = columns(by_index([[1.0 if i % 2 else None] for i in range(100)]), range(100))
    (only,) = intervals(found, 4000, seed=0)
    low, high = only["success_rate"]
    assert (low, high) == (pytest.approx(0.402, abs=0.015), pytest.approx(0.598, abs=0.015))


def test_bootstrap_of_nothing_is_nothing():
    assert set(intervals(columns([{}], []), 10, 0)[0].values()) == {None}
    (only,) = intervals(columns(by_index([[None], [None]]), range(2)), 300, 0)
    assert only["success_rate"] == (0.0, 0.0)
    assert only["median_radius"] is None


@pytest.fixture(scope="module")
def comparison():
    return comparison_of(by_index([[2.0, 2.0], [1.0, 1.5], [3.0, 2.99], [None, 4.0]]), resamples=50)


def test_csv_is_read_back_with_every_digit(comparison):
    rows = list(csv.DictReader(io.StringIO(comma_separated(comparison))))
    assert [row["attack"] for row in rows] == comparison.labels
    for row, figures_, ends in zip(rows, comparison.figures, comparison.intervals, strict=True):
        for name, value in vars(figures_).items():
            assert row[name] == ("" if value is None else str(value))
        assert float(row["best_share_low"]) == ends["best_share"][0]


def test_json_is_strict(comparison):
    rows = parse_strict(WRITERS["json"](comparison))
    assert [row["attack"] for row in rows] == comparison.labels
    assert rows[0]["best_share"] == comparison.figures[0].best_share


def test_markdown_has_as_many_cells_in_every_row(comparison):
    rows = [line for line in markdown(comparison).splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(comparison.attacks)
    assert len({line.count("|") for line in rows}) == 1
    assert re.fullmatch(r"\|---\|(--:\|)+", rows[1])


@pytest.mark.parametrize("width", [50, 64, 80, 97, 120, 200])
def test_a_narrow_terminal_gets_several_tables_with_all_in_them(comparison, width):
    display = Display()
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


def test_latex_compiles(comparison, tmp_path):
    text = latex(comparison)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(comparison.attacks)
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert text.count("{") == text.count("}")
    assert text.isascii()
    if shutil.which("pdflatex"):
        (tmp_path / "t.tex").write_text(
            "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + text + "\\end{document}"
        )
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == 0


def test_names_that_mean_something_to_a_format_are_escaped(comparison):
    odd = comparison_of(by_index([[1.0]]))
    odd = type(odd)(
        **{**vars(odd), "attacks": (type(odd.attacks[0])("a|b_c&<d>", odd.attacks[0].parts, odd.attacks[0].records),)}
    )
    assert r"a\|b_c" in markdown(odd)
    assert r"a|b\_c\&<d>" in latex(odd)
    assert next(csv.DictReader(io.StringIO(comma_separated(odd))))["attack"] == "a|b_c&<d>"
    page = report(odd, "now")
    assert "a|b_c&amp;&lt;d&gt;" in page
    assert "<d>" not in page


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures_are_written(comparison, tmp_path, name, suffix):
    path = tmp_path / f"picture.{suffix}"
    write_picture(path, name, comparison, "title")
    assert path.read_bytes().startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[suffix])


@pytest.mark.parametrize("table", [[[None, None]], [[1.0, None]]], ids=["no success", "one"])
def test_pictures_of_next_to_nothing(tmp_path, table):
    few = comparison_of(by_index(table))
    for name in PICTURES:
        write_picture(tmp_path / f"{name}.png", name, few, "")


def test_the_curves_are_the_shares_attacked_within_a_radius(comparison):
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    PICTURES["proportion"](axis, comparison)
    bound, first, second = axis.lines
    for line, radii in [(bound, [0.5, 0.6, 0.7, 0.8]), (first, [1.0, 2.0, 3.0]), (second, [1.5, 2.0, 2.99, 4.0])]:
        x, y = line.get_data()
        assert list(x[1:-1]) == pytest.approx(radii)
        assert list(y[1:-1]) == pytest.approx([(k + 1) / 4 for k in range(len(radii))])
        assert y[-1] == y[-2]


def test_the_report_needs_nothing_else(comparison):
    """Well-formed, with no link to anything outside it, no name twice, and no colour for one background only."""
    page = report(comparison, "2026-01-01")
    root = ET.fromstring(
        page.removeprefix("<!DOCTYPE html>")
        .replace('<meta charset="utf-8">', "")
        .replace('<meta name="viewport" content="width=device-width, initial-scale=1">', "")
    )
    svg = "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter(svg))) == len(PICTURES) - 1  # two attacks are no sweep worth a picture
    for element in root.iter():
        for key, value in element.attrib.items():
            if key.endswith(("href", "src")):
                assert value.startswith("#"), value
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "<script" not in page
    names = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(names) == len(set(names))
    for used in re.findall(r'(?:url\(#|href="#)([^)"]+)', page):
        assert used in names
    for name in PICTURES:
        drawn = inline_svg(name, comparison)
        assert "currentColor" in drawn
        assert "#000000" not in drawn
        assert "#ffffff" not in drawn
    for label in comparison.labels:
        assert page.count(label) >= 3
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_the_report_is_dark_where_the_reader_is(comparison, tmp_path):
    """In a real browser: the ground is that of the scheme, the curves' axes contrast with it, nothing sticks out."""
    from matplotlib.image import imread

    page = tmp_path / "report.html"
    page.write_text(report(comparison, "2026-01-01"), encoding="utf-8")
    for scheme, ground in [(1, 1.0), (0, 0.09)]:
        shot = tmp_path / f"{scheme}.png"
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1300,1400"]
        words += [f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path / 'browser'}"]
        words += [f"--screenshot={shot}"]
        subprocess.run([BROWSER, *words, page.as_uri()], capture_output=True, check=True, timeout=180)
        grey = imread(shot)[:, :, :3].mean(axis=2)
        assert grey[0, 0] == pytest.approx(ground, abs=0.02)
        assert abs(grey - grey[0, 0]).max() > 0.7
        assert (grey[:, :20] == grey[0, 0]).all()
        assert (grey[:, -20:] == grey[0, 0]).all()


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
    assert "caa:surrogate=gumbel" in result.stdout
    assert "3 eligible of 3 images" in result.stdout
    for name in WRITERS:
        shown = caa("compare", *files, "--format", name, "--quiet")
        assert shown.exit_code == 0, shown.output
        assert shown.stdout
        assert shown.stderr == ""
    as_document = caa("compare", *files, "--json")
    again = parse_strict(as_document.stdout)
    assert {**again, "created": None} == {**found, "created": None}
    assert (tmp_path / "c.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
