"""How a comparison is shown: formats, pictures, the report."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from comparing import assert_as_by_hand, by_index, comparison_of, document, record, write
from rich.console import Console
from support import caa, parse_strict, read_strict

from caa_cli.config.pictures import PICTURES
from caa_cli.display import Display
from caa_cli.report.headings import HEADINGS
from caa_cli.report.html import report
from caa_cli.report.latex import latex
from caa_cli.report.plots import evaluations, inline_svg, proportion, write_picture
from caa_cli.report.tables import cells, comma_separated, markdown
from caa_cli.report.writers import WRITERS


@pytest.fixture(scope="module")
def comparison():
    return comparison_of(by_index([[2.0, 2.0], [1.0, 1.5], [3.0, 2.99], [None, 4.0]]), resamples=50)


def test_csv_is_read_back_with_every_digit(comparison):
    rows = list(csv.DictReader(io.StringIO(comma_separated(comparison))))
    assert [row["attack"] for row in rows] == comparison.labels
    for row, figures_, ends in zip(rows, comparison.figures, comparison.intervals, strict=True):
        for name, value in vars(figures_).items():
            assert row[name] == ("" if value is None else str(value))
        assert float(row["success_rate_low"]) == ends["success_rate"][0]


def test_json_is_strict(comparison):
    rows = parse_strict(WRITERS["json"](comparison))
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


def named(comparison, label):
    """The comparison with its first attack under another name."""
    first, *others = comparison.attacks
    return replace(comparison, attacks=(replace(first, label=label), *others))


ODD = ["a|b_c&<d>", r"50%\of {it}", "$x^2$~#1", "caa:surrogate=gumbel:temperature=1e-05", "end{tabular}"]


@pytest.mark.parametrize("label", ODD)
def test_latex_is_well_formed_whatever_an_attack_is_called(comparison, label):
    text = latex(named(comparison, label))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 1 + len(comparison.attacks)
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert text.count("{") == text.count("}")
    assert text.isascii()
    # What is left of the name without the escapes holds nothing that LaTeX would act on.
    name = rows[1].split(" & ")[0]
    plain = re.sub(r"\\text[a-z]+\{\}|\\[_%&#${}]", "", name)
    assert not set(plain) & set("\\_%&#${}~^<>|")
    # The braces that are not the name's are in pairs.
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0


TEX = next((path for name in ("pdflatex", "tectonic") if (path := shutil.which(name))), None)


@pytest.mark.skipif(TEX is None, reason="no LaTeX")
@pytest.mark.parametrize("label", ODD)
def test_latex_compiles(comparison, tmp_path, label):
    table = latex(named(comparison, label))
    (tmp_path / "t.tex").write_text(
        "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\\begin{document}"
        + table
        + "\\end{document}"
    )
    words = [TEX, "t.tex"] if "tectonic" in TEX else [TEX, "-interaction=nonstopmode", "t.tex"]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_names_that_mean_something_to_a_format_are_escaped(comparison):
    odd = named(comparison_of(by_index([[1.0]])), "a|b_c&<d>")
    assert r"a\|b_c" in markdown(odd)
    assert r"a\textbar{}b\_c\&\textless{}d\textgreater{}" in latex(odd)
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
    proportion(axis, comparison)
    bound, first, second = axis.lines
    for line, radii in [(bound, [0.5, 0.6, 0.7, 0.8]), (first, [1.0, 2.0, 3.0]), (second, [1.5, 2.0, 2.99, 4.0])]:
        x, y = line.get_data()
        assert list(x[1:-1]) == pytest.approx(radii)
        assert list(y[1:-1]) == pytest.approx([(k + 1) / 4 for k in range(len(radii))])
        assert y[-1] == y[-2]


def test_radii_are_beside_the_smallest_that_any_attack_found(comparison):
    from matplotlib.figure import Figure

    axis = Figure().subplots()
    evaluations(axis, comparison)
    images, middle, others, their_middle = (line.get_ydata() for line in axis.lines)
    assert list(images) == pytest.approx([0.0, 0.0, 100 * (3.0 / 2.99 - 1.0)])
    assert list(middle) == pytest.approx([0.0])
    assert list(others) == pytest.approx([0.0, 50.0, 0.0, 0.0])
    assert list(their_middle) == pytest.approx([0.0])
    alone = Figure().subplots()
    evaluations(alone, comparison_of(by_index([[2.0], [1.0]])))
    assert list(alone.lines[0].get_ydata()) == pytest.approx([2.0, 1.0])


def test_the_report_needs_nothing_else(comparison):
    """Well-formed, with no link to anything outside it, no name twice, and no colour for one background only."""
    page = report(comparison, "2026-01-01")
    root = ET.fromstring(re.sub("<meta [^>]*>", "", page.removeprefix("<!DOCTYPE html>")))
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
    assert found["config"].pop("html") == str(tmp_path / "c.html")
    as_document = caa("compare", *files, "--json")
    again = parse_strict(as_document.stdout)
    assert {**again, "created": None} == {**found, "created": None}
    assert (tmp_path / "c.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
