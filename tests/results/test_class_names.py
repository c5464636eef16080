"""The names of classes, from a data set to a result and from there to a page."""

from __future__ import annotations

from comparing import document, record, write
from support import CHEAP, attack, caa, read_strict

from caa_cli.report import html
from caa_cli.report.latex import latex
from caa_cli.report.presentation import title_of
from caa_cli.results.class_names import class_name, names_of_classes
from caa_cli.results.comparison import compare
from caa_cli.results.shards.result_file import read_result_file
from caa_cli.results.shards.run_results import join

NAMES = tuple(f"digit {number}" for number in range(10))


def test_a_result_has_the_names_of_its_classes_alone(tmp_path):
    found = attack(tmp_path / "a.json", "--limit", "2")
    mentioned = {e[key] for e in found["examples"] for key in ("label", "prediction", "adversarial_class")} - {None}
    assert found["class_names"] == {str(number): NAMES[number] for number in sorted(mentioned)}
    certified = caa(
        "certify", "--checkpoint", "demo", "--limit", "2", "--samples", "100", "--output", tmp_path / "c.json"
    )
    assert certified.exit_code == 0, certified.output
    assert set(read_strict(tmp_path / "c.json")["class_names"].values()) == {"digit 7", "digit 2"}


def test_shards_unite_their_names(tmp_path):
    for index in (0, 1):
        words = ("--limit", "2", "--shard", f"{index}/2", "--output", tmp_path / f"{index}.json")
        assert caa("attack", *CHEAP, *words).exit_code == 0
    merged = caa("merge", tmp_path / "0.json", tmp_path / "1.json", "--output", tmp_path / "all.json")
    assert merged.exit_code == 0, merged.output
    parts = [read_strict(tmp_path / f"{index}.json")["class_names"] for index in (0, 1)]
    assert read_strict(tmp_path / "all.json")["class_names"] == parts[0] | parts[1]
    assert parts[0].keys() != parts[1].keys()


def test_older_results_without_names_are_read(tmp_path):
    """What version 0.1 wrote has no names, and can be compared with what has."""
    old = write(tmp_path / "old.json", document([record(0, 1.0)]))
    new = write(tmp_path / "new.json", {**document([record(0, 1.5)], attack="pgd"), "class_names": {"0": "zero"}})
    assert compare(join([read_result_file(old), read_result_file(new)])).class_names == {"0": "zero"}
    assert compare(join([read_result_file(old)])).class_names == {}


def test_a_class_without_a_name_has_its_number():
    assert class_name(3, {"3": "cat"}) == "cat"
    assert class_name(4, {"3": "cat"}) == "class 4"
    records = [record(3, 1.0, adversarial_class=12), record(4, None, prediction=None)]
    assert names_of_classes(records, ("a", "b", "c", "d", "e")) == {"3": "d", "4": "e"}
    assert names_of_classes(records, ()) == {}


def test_a_comparison_says_which_class_was_the_target(tmp_path):
    """In its title, on its page and in the caption of its table, by name."""
    records = [record(0, 1.0, target=3, adversarial_class=3)]
    for target, words in (("3", "cat"), ("second", "second most likely"), ("file sha256 0123", "that a file names")):
        parts = [
            {**document(records, attack=attack, target=target), "class_names": {"3": "cat"}}
            for attack in ("pgd", "ddn")
        ]
        files = [write(tmp_path / f"{n}.json", part) for n, part in enumerate(parts)]
        found = compare(join([read_result_file(file) for file in files]))
        assert words in title_of(found)
        assert words in latex(found)
        assert words in html.report(found, found.to_json("complete"))
    untargeted = compare(join([read_result_file(write(tmp_path / "u.json", document([record(0, 1.0)])))]))
    assert "target" not in title_of(untargeted) + latex(untargeted)


def test_a_target_that_was_not_reached_has_its_name_too():
    assert names_of_classes([record(0, None, target=2)], ("a", "b", "c")) == {"0": "a", "2": "c"}
