"""Names that come from files, in every format that they are shown in."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET

import pytest
from comparing import document, record, write
from support import assert_clean_error, caa

from caa_cli.report.escapes import csv_cell, drawn, latex, markdown, markup

ODD = ["$\\frac{$", "$$ \ud800$", "\x1b[31m\u202egnp a\nb\0\udcff", "\ufffe\uffff"]


def files(folder, name, *names):
    """Two results of one attack, whose label has a setting of this name."""
    good = document([record(i, 1.5 + i) for i in range(2)])
    found = []
    for value in (1, 2):
        found.append(folder / f"{value}.json")
        write(found[-1], {**good, "config": {**good["config"], name: value, **dict.fromkeys(names, "x")}})
    return found


@pytest.mark.parametrize("name", ODD)
def test_whatever_a_setting_is_called_it_is_drawn_and_written(tmp_path, name):
    """No letter of it is acted on: not by mathtext, nor by a terminal; and all of it can be encoded."""
    places = [tmp_path / "c.json", tmp_path / "c.html"]
    words = ["compare", *files(tmp_path, name), "--output", places[0], "--html", places[1]]
    for option in ("--figure", "--figure-excess", "--figure-evaluations", "--figure-sweep"):
        places.append(tmp_path / f"{option}.svg")
        words += [option, places[-1]]
    result = caa(*words)
    assert result.exit_code == 0, result.output
    shown = result.output
    for form in ("markdown", "latex", "csv", "json"):
        again = caa("compare", *words[1:3], "--format", form)
        assert again.exit_code == 0, again.output
        shown += again.output
    shown += "".join(place.read_bytes().decode("utf-8") for place in places)
    assert not any(letter in shown for letter in "\x1b\u202e\0")
    for place in places:
        if place.suffix == ".svg":
            ET.parse(place)
    assert all(place.stat().st_size > 100 for place in places)


@pytest.mark.parametrize(("field", "value"), [("arch", "\ud800"), ("dataset", "$\\frac{$"), ("arch", "\x1b[31m")])
def test_a_title_is_shown_whatever_it_says(tmp_path, field, value):
    good = document([record(0, 1.5)])
    path = write(tmp_path / "a.json", {**good, "config": {**good["config"], field: value}})
    result = caa("compare", path, "--figure", tmp_path / "a.png", "--html", tmp_path / "a.html")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output + (tmp_path / "a.html").read_text(encoding="utf-8")


def test_a_message_is_shown_whatever_a_file_says(tmp_path):
    good = document([record(0, 1.5)])
    path = write(tmp_path / "a.json", {**good, "command": "\ud800\x1b[31m"})
    assert_clean_error(caa("compare", path), 1, "its command is")


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "=\ud800", "-"])
def test_a_spreadsheet_calculates_nothing(text):
    assert csv_cell(text).startswith("'")
    buffer = io.StringIO()
    csv.writer(buffer).writerow([csv_cell(text)])
    buffer.getvalue().encode()


def test_honest_names_stay_as_they_are():
    for text in ("caa", "caa:step-min=0.2:gradient=surrogate-model=a_b.safetensors", "-1.5", "+3", "ddn (σ)"):
        assert csv_cell(text) == markdown(text) == markup(text) == drawn(text) == text
    assert latex("caa:step-min=0.2") == "caa:step-min=0.2"


def test_nothing_in_a_cell_of_markdown_is_markup():
    assert markdown("<script>alert(1)</script>") == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert markdown("[x](javascript:alert(1))") == r"\[x\](javascript:alert(1))"
    assert markdown("![x](a) `c` **d** a|b") == r"\!\[x\](a) \`c\` \*\*d\*\* a\|b"
    assert markdown("_a_ my.py:__call__ b_c") == r"\_a\_ my.py:\_\_call\_\_ b_c"
    assert markdown("a\\|b") == r"a\\\|b"
    assert markdown("a\n|b\x1b\u202e") == r"a\\n\|b\\x1b\\u202e"


def test_the_first_letters_of_a_row_are_no_options_of_the_one_before():
    assert latex("[1em]x*") == "{[}1em{]}x{*}"
    assert latex("a\x1b\nb") == r"a\textbackslash{}x1b\textbackslash{}nb"


def test_an_accent_that_a_file_name_has_apart_is_written_with_its_letter():
    """As macOS names files."""
    assert latex("mode\u0300le") == latex("mod\u00e8le") == r"mod\`{e}le"


def test_a_very_long_name_is_cut_in_a_picture():
    assert drawn("x" * 10**6).endswith("…")
    assert len(drawn("x" * 10**6)) == 120


def test_csv_of_a_comparison_begins_no_cell_with_a_formula(tmp_path):
    good = document([record(0, 1.5)], "=cmd|' /C calc'!A0")
    shown = caa("compare", write(tmp_path / "a.json", good), "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(shown.stdout))
    assert row["attack"] == "'=cmd|' /C calc'!A0"
    assert float(row["median_radius"]) == 1.5
    as_json = json.loads(caa("compare", tmp_path / "a.json", "--format", "json").stdout)
    assert as_json[0]["attack"] == "=cmd|' /C calc'!A0"
