"""The page of a comparison: self-contained, complete, and readable in a browser of any width and ground."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest
from comparing import document, record, write
from matplotlib.image import imread
from support import caa
from typer.main import get_command

from caa_cli.cli.app import app
from caa_cli.config.pictures import PICTURES
from caa_cli.report.headings import FURTHER, HEADINGS
from caa_cli.report.html import report
from caa_cli.report.plots import inline_svg
from caa_cli.report.selection import chosen_by, listed
from caa_cli.report.sweep import find_sweep


def page_of(comparison, gallery=None, **others):
    return report(comparison, {**comparison.to_json("complete"), **others}, gallery)


def parsed(page):
    return ET.fromstring(re.sub("<meta [^>]*>", "", page.removeprefix("<!DOCTYPE html>")))


def test_the_page_needs_nothing_else(comparison):
    """Well-formed, with no link to anything outside it, no name twice, and no colour for one background only."""
    page = page_of(comparison)
    root = parsed(page)
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
    assert find_sweep(comparison) is not None
    for name in PICTURES:
        drawn = inline_svg(name, comparison)
        assert "currentColor" in drawn
        assert "#000000" not in drawn
        assert "#ffffff" not in drawn
    for label in comparison.labels:
        assert page.count(label) >= 3


def test_the_page_says_how_the_comparison_was_made(tmp_path):
    records = [record(i, 1.5) for i in range(6)]
    records[4] = record(4, None, outcome="misclassified", certified=None)
    settings = {"limit": 6, "certify_samples": 3000, "verify_samples": 4000}
    files = [
        write(tmp_path / "a.json", document(records, **settings)),
        write(tmp_path / "b.json", document(records, attack="pgd", **settings)),
    ]
    result = caa("compare", *files, "--html", tmp_path / "c.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    rows = {
        row[0].text: "".join(row[1].itertext()) for row in parsed(page).iter("tr") if len(row) > 1 and row[0].text
    }
    assert rows["model"] == "small-cnn from demo"
    assert rows["images"] == "6 of demo test (100 images): 0–5"
    assert rows["chosen"] == "the first 6 of all images (--limit 6)"
    assert rows["not eligible"].startswith("4: ")
    assert rows["certificate"] == "cohen, goodman bounds, α = 0.005, n = 3000 samples"
    assert rows["success"] == "verified at α = 0.005 on fresh noise, 4000 samples per try"
    assert rows["--certify-samples"] == "3000"
    assert rows["--overshoot"] == "1.05"
    assert rows["image resize (of the checkpoint)"] == "–"
    options = {name for option in get_command(app).commands["attack"].params for name in option.opts}
    assert {name for name in rows if name.startswith("--")} <= options
    assert "The authors" not in page
    assert "{" not in re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_numbers_of_samples_that_older_files_leave_open_are_left_out(comparison):
    assert comparison.config["certify_samples"] is None
    page = page_of(comparison)
    assert "cohen, goodman bounds, α = 0.005</td>" in page
    assert "verified at α = 0.005 on fresh noise</td>" in page


def test_the_page_has_its_command_date_and_version(comparison):
    page = page_of(
        comparison, command_line="caa compare 'a b.json' --html x", tool_version="9.8", created="2001-02-03"
    )
    assert '<pre>caa compare &#x27;a b.json&#x27; <span class="word">--html</span> x</pre>' in page
    assert "caa 9.8, 2001-02-03" in page
    assert "<pre>" not in page_of(comparison)


def test_no_line_breaks_after_a_hyphen(comparison):
    page = page_of(comparison)
    assert '<th scope="col"><span class="word">%-C</span></th>' in page
    assert '<th scope="col"><span class="word">near-best</span> %</th>' in page
    assert "thead .word { white-space: nowrap; }" in page  # a narrow column would still break it


def test_what_is_nested_is_a_row_each(comparison):
    from dataclasses import replace

    first, *others = comparison.attacks
    environment = {"torch": "2", "engine": {"votes_chunk": 128, "measured": True, "others": None}}
    part = replace(first.parts[0], environment=environment)
    page = page_of(replace(comparison, attacks=(replace(first, parts=(part,)), *others)))
    for name, value in (("engine votes chunk", "128"), ("engine measured", "yes"), ("engine others", "–")):
        assert f'<th scope="row">{name}</th><td>{value}</td>' in page


def test_the_best_is_bold(comparison):
    page = page_of(comparison)
    assert "<td><b>2.495</b>" in page
    assert "<td>2.500" in page


def test_every_column_is_explained(comparison):
    root = parsed(page_of(comparison))
    assert [term.text for term in root.iter("dt")] == [heading.text for heading in (*HEADINGS, *FURTHER)]
    assert all(definition.text for definition in root.iter("dd"))


def test_pictures_and_tables_have_names_for_those_who_do_not_see_them(comparison):
    root = parsed(page_of(comparison))
    for element in root.iter():
        if element.get("role"):
            assert element.get("aria-label")
    pictures = [element for element in root.iter() if element.get("role") == "img"]
    assert len(pictures) == len(PICTURES) - 1
    assert all(comparison.labels[0] in picture.get("aria-label") for picture in pictures)


@pytest.mark.parametrize(
    ("selection", "dataset", "words"),
    [
        ({}, "mnist", "all images"),
        ({}, "demo", "the first 20 of all images (the default for demo)"),
        ({"limit": 5}, "demo", "the first 5 of all images (--limit 5)"),
        (
            {"skip": 3, "every": 20, "limit": 500},
            "cifar10",
            "the first 500 of every 20th image (--every 20) from image 3 on (--skip 3) (--limit 500)",
        ),
        ({"every": 2}, "cifar10", "every 2nd image (--every 2)"),
        ({"indices_file": "hard.txt"}, "demo", "those listed in hard.txt (--indices)"),
    ],
)
def test_how_images_were_chosen(selection, dataset, words):
    from caa_cli.config.choices import DEMO_LIMIT

    assert chosen_by(selection, dataset) == words.replace(
        "first 20 of all images (the", f"first {DEMO_LIMIT} of all images (the"
    )


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        ([], "none"),
        ([7], "7"),
        ([0, 1, 2, 3, 9, 11, 12], "0–3, 9, 11–12"),
        (list(range(0, 100, 20)), "0, 20, …, 80"),
        ([0, 20, 40], "0, 20, 40"),
        ([*range(0, 301, 3), 302], None),
    ],
)
def test_indices_are_listed_briefly(indices, words):
    shown = listed(indices)
    assert shown == words if words is not None else shown.endswith("… (2 more ranges)")


BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium")


def shot(page, folder, width, height, scheme=1):
    """A page in a real browser, in a frame of this width (a window has at least 500 pixels). (height, width, 3)."""
    (folder / "page.html").write_text(page, encoding="utf-8")
    frame = f'<iframe src="page.html" style="width:{width}px;height:{height}px;border:0"></iframe>'
    (folder / "frame.html").write_text(f'<body style="margin:0">{frame}</body>')
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    words += [f"--window-size={max(width, 500)},{height}", f"--blink-settings=preferredColorScheme={scheme}"]
    words += [f"--user-data-dir={folder / 'browser'}", f"--screenshot={folder / 'shot.png'}"]
    address = (folder / "frame.html").as_uri()
    subprocess.run([BROWSER, *words, address], capture_output=True, check=True, timeout=180)
    return imread(folder / "shot.png")[:, :width, :3]


@needs_browser
@pytest.mark.parametrize(
    ("width", "scheme", "ground"),
    [(1300, 1, 1.0), (1300, 0, 0.076), (360, 1, 1.0)],
    ids=["light", "dark", "phone"],
)
def test_the_page_fits_the_reader(comparison, tmp_path, width, scheme, ground):
    """The ground is that of the scheme, marks contrast with it, and nothing sticks out of the margins."""
    pixels = shot(page_of(comparison, command_line="caa compare " + "x" * 300), tmp_path, width, 1400, scheme)
    grey = pixels.mean(axis=2)
    assert grey[0, 0] == pytest.approx(ground, abs=0.02)
    assert abs(grey - grey[0, 0]).max() > 0.7
    assert (grey[:, :12] == grey[0, 0]).all()
    assert (grey[:, -12:] == grey[0, 0]).all()
