"""A result of `caa compare` that is shown again, without the results that it compares."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
from comparing import document, record, write
from support import CHEAP, assert_clean_error, caa, parse_strict, read_strict

from caa_cli.config.choices import TABLE_FORMATS
from caa_cli.results.comparison_document import read_comparison


def compared(folder, *words):
    """The document of two attacks, one in two selections, over images of which one is not eligible."""
    one = [record(i, r, certified=0.7) for i, r in enumerate([1.5, 2.0, None, 3.0, 1.25, 2.5, 1.75])]
    one[3] = record(3, None, outcome="misclassified", certified=None)
    two = [record(i, r, certified=0.7) for i, r in enumerate([1.4, 2.5, 3.0, 1.0, 1.5, 2.25, None])]
    two[3] = one[3]
    files = [
        write(folder / "a.json", document(one[:4], limit=4, save_adversarial="a.safetensors")),
        write(folder / "b.json", document(one[4:], skip=4, limit=3)),
        write(folder / "c.json", document(two, attack="pgd", pgd_epsilon=0.5, limit=7)),
    ]
    result = caa("compare", *files, "--output", folder / "compare.json", "--bootstrap", "50", "--seed", "3", *words)
    assert result.exit_code == 0, result.output
    for file in files:
        file.unlink()
    return read_strict(folder / "compare.json")


def test_the_same_document_comes_out_again(tmp_path):
    """All numbers, to the last bit, with the names, the intervals and where it came from."""
    first = compared(tmp_path, "--reference", "pgd")
    result = caa("compare", tmp_path / "compare.json", "--output", tmp_path / "again.json")
    assert result.exit_code == 0, result.output
    assert read_strict(tmp_path / "again.json") == first
    assert first["summary"]["bootstrap"] == {"resamples": 50, "level": 0.95, "seed": 3}
    assert first["reference"] == "pgd"


@pytest.mark.parametrize("name", TABLE_FORMATS)
def test_every_format_shows_the_same(tmp_path, name):
    files = [
        write(tmp_path / "a.json", document([record(i, 1.5 + i) for i in range(3)])),
        write(tmp_path / "b.json", document([record(i, 1.4 + i) for i in range(3)], attack="pgd")),
    ]
    before = caa("compare", *files, "--format", name, "--output", tmp_path / "compare.json")
    after = caa("compare", tmp_path / "compare.json", "--format", name)
    assert after.exit_code == 0, after.output
    assert after.stdout == before.stdout


def test_the_page_and_the_pictures_are_drawn_without_the_attacks(tmp_path):
    first = compared(tmp_path)
    words = ["compare", tmp_path / "compare.json", "--html", tmp_path / "c.html"]
    figures = ("--figure", "--figure-excess", "--figure-evaluations")
    result = caa(*words, *(word for option in figures for word in (option, tmp_path / f"{option}.svg")))
    assert result.exit_code == 0, result.output
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert first["created"] in page
    assert f"caa {first['tool_version']}" in page
    text = re.sub(r"</?span[^>]*>", "", page)
    assert "the first 4 of all images (--limit 4); and the first 3 of all images from image 4 on" in text
    assert "The adversarial images are not there any more: no file of these runs is at a.safetensors" in page
    assert page.count("<svg") == len(figures)
    assert all((tmp_path / f"{option}.svg").read_text().startswith("<?xml") for option in figures)


def test_its_command_is_that_of_the_comparison(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["caa", "compare", "a.json", "b c.json", "--overwrite"])
    first = compared(tmp_path)
    assert first["command_line"] == "caa compare a.json 'b c.json'"
    monkeypatch.setattr("sys.argv", ["caa", "compare", "compare.json"])
    shown = parse_strict(caa("compare", tmp_path / "compare.json", "--json").stdout)
    assert shown["command_line"] == first["command_line"]


def test_images_that_are_kept_are_shown_again(tmp_path):
    words = ("compare", *CHEAP, "--attacks", "caa", "--limit", "2", "--output", tmp_path / "c.json")
    assert caa(*words, "--html", tmp_path / "c.html").exit_code == 0
    (tmp_path / "c.caa.json").unlink()
    again = caa("compare", tmp_path / "c.json", "--html", tmp_path / "again.html")
    assert again.exit_code == 0, again.output
    before, after = ((tmp_path / name).read_text(encoding="utf-8") for name in ("c.html", "again.html"))
    assert before.count("data:image/png") > 3
    assert after == before


def test_attacks_on_several_models_are_shown_again(tmp_path):
    files = []
    for name, digest, radii in (("m", "a", [1.5, 2.0, None]), ("n", "b", [1.0, None, 2.5])):
        for attack in ("caa", "pgd"):
            found = document([record(i, r and r + len(files), certified=0.7) for i, r in enumerate(radii)], attack)
            found["checkpoint"] |= {"path": f"{name}.safetensors", "sha256": digest * 64}
            files.append(write(tmp_path / f"{name}-{attack}.json", found))
    first = caa("compare", *files, "--output", tmp_path / "compare.json", "--bootstrap", "40", "--format", "latex")
    assert first.exit_code == 0, first.output
    for file in files:
        file.unlink()
    words = ("--format", "latex", "--output", tmp_path / "again.json", "--figure", tmp_path / "p.svg")
    again = caa("compare", tmp_path / "compare.json", *words)
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
    before, after = read_strict(tmp_path / "compare.json"), read_strict(tmp_path / "again.json")
    del after["config"]["figure"]
    assert after == before
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")
    write(tmp_path / "compare.json", changed(before, "models.m.indices", ...))
    assert_clean_error(caa("compare", tmp_path / "compare.json"), 1, "is damaged (indices is missing)")


@pytest.mark.parametrize("outcome", ["misclassified", "failed"])
@pytest.mark.parametrize("models", [1, 2])
def test_one_of_no_eligible_image_is_shown_again(tmp_path, outcome, models):
    """It says nothing about its model, but it can be read like any other."""
    nothing = document([record(i, None, certified=None, outcome=outcome) for i in range(3)])
    good = document([record(i, 1.5) for i in range(3)])
    good["checkpoint"] |= {"sha256": "b" * 64, "path": "good.pt"}
    files = [write(tmp_path / f"{n}.json", found) for n, found in enumerate([nothing, good][:models])]
    first = caa("compare", *files, "--output", tmp_path / "c.json")
    again = caa("compare", tmp_path / "c.json", "--output", tmp_path / "again.json")
    assert again.exit_code == first.exit_code == (3 if outcome == "failed" else 0), again.output
    assert again.stdout == first.stdout
    assert read_strict(tmp_path / "again.json") == read_strict(tmp_path / "c.json")


def test_intervals_and_reference_can_be_others(tmp_path):
    compared(tmp_path)
    result = caa("compare", tmp_path / "compare.json", "--bootstrap", "40", "--reference", "pgd", "--json")
    found = parse_strict(result.stdout)
    assert found["summary"]["bootstrap"]["resamples"] == 40
    assert found["reference"] == "pgd"
    assert_clean_error(caa("compare", tmp_path / "compare.json", "--reference", "x"), 2, "--reference x is none")


def test_an_unfinished_comparison_stays_one(tmp_path):
    first = compared(tmp_path)
    write(tmp_path / "compare.json", {**first, "status": "interrupted", "notes": ["left out: x"]})
    result = caa("compare", tmp_path / "compare.json", "--output", tmp_path / "again.json")
    assert result.exit_code == 3
    assert "left out: x" in result.stderr
    assert read_strict(tmp_path / "again.json")["status"] == "partial"


def changed(found, path, value):
    found = copy.deepcopy(found)
    *folders, name = path.split(".")
    at = found
    for folder in folders:
        at = at[int(folder) if folder.isdigit() else folder]
    if value is ...:
        del at[int(name) if name.isdigit() else name]
    else:
        at[int(name) if name.isdigit() else name] = value
    return found


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("attacks.caa.examples.0.radius", -1, "is damaged (image 0: radius is -1, not a number at least 0)"),
        ("attacks.caa.examples", 5, "(attacks.caa.examples is 5, not a list)"),
        ("attacks.pgd.examples.0", ..., "(attacks.pgd.examples are not the eligible images)"),
        ("attacks.caa.examples.0.outcome", "abstained", "(attacks.caa.examples are not the eligible images)"),
        ("attacks.caa.runs", [], "(attacks.caa.runs is empty)"),
        ("attacks.caa.runs.0.fingerprint", None, "(attacks.caa.runs[0].fingerprint is null, not a text)"),
        ("attacks.caa.settings", ..., "(attacks.caa.settings is missing)"),
        ("indices", [0], "(indices lacks an image of the attacks)"),
        ("config.sigma", None, "(config.sigma is null, not a number above 0)"),
        ("config", [], "(config is a list, not an object)"),
        ("checkpoint", {}, "(checkpoint.sha256 is missing)"),
        ("status", "fine", '(status is "fine", not one of complete, partial, interrupted)'),
        ("summary.bootstrap", {"resamples": 0, "seed": 0}, "(summary.bootstrap.resamples is 0, not"),
        ("class_names", {"0": 1}, "(class_names.0 is 1, not a text)"),
        ("schema_version", 2, "was written in schema 2, this is 1"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path, path, value, problem):
    write(tmp_path / "compare.json", changed(compared(tmp_path), path, value))
    assert_clean_error(caa("compare", tmp_path / "compare.json"), 1, problem)


def test_one_that_holds_too_little_names_the_files_to_compare(tmp_path):
    """Version 0.1 did not record which images it compared."""
    first = compared(tmp_path)
    write(tmp_path / "compare.json", changed(first, "indices", ...))
    result = caa("compare", tmp_path / "compare.json")
    assert_clean_error(result, 2, "compare.json is a result of caa compare", f"{tmp_path / 'a.json'}")
    write(tmp_path / "compare.json", changed(first, "attacks", {}))
    assert_clean_error(caa("compare", tmp_path / "compare.json"), 2, "compare.json is a result of caa compare")


def test_it_is_not_compared_with_other_results(tmp_path):
    compared(tmp_path)
    other = write(tmp_path / "d.json", document([record(0, 1.0)]))
    files = "caa compare " + " ".join(str(tmp_path / f"{name}.json") for name in "abcd")
    assert_clean_error(caa("compare", tmp_path / "compare.json", other), 2, "is a result of caa compare", files)


def test_the_files_of_several_comparisons_are_named_as_they_are_found(tmp_path, monkeypatch):
    """Each was made in its own folder, and is read from another one."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        compared(Path())
        for file in "abc":
            Path(f"{file}.json").touch()
    monkeypatch.chdir(tmp_path)
    hint = "caa compare one/a.json one/b.json one/c.json two/a.json two/b.json two/c.json"
    refused = caa("compare", "one/compare.json", "two/compare.json")
    assert_clean_error(refused, 2, "one/compare.json is a result of caa compare", hint)


def test_other_results_are_left_to_their_readers(tmp_path):
    assert read_comparison(write(tmp_path / "a.json", document([record(0, 1.0)]))) is None
    (tmp_path / "b.json").write_text(json.dumps([]))
    assert read_comparison(tmp_path / "b.json") is None
