"""`caa compare` over files: those that it refuses, and those that it uses as far as they go."""

from __future__ import annotations

import copy
import json

import pytest
from comparing import document, record, write
from support import assert_clean_error, caa, read_strict

from caa_cli.runtime.sharding import Shard


def good(**settings):
    return document([record(i, 1.5 + i) for i in range(4)], **settings)


def changed(path: str, value: object, **settings):
    """A good file with one thing in it changed; path as in examples.0.radius."""
    found = copy.deepcopy(good(**settings))
    *folders, name = path.split(".")
    at = found
    for folder in folders:
        at = at[int(folder) if folder.isdigit() else folder]
    at[int(name) if name.isdigit() else name] = value
    return json.dumps(found)


DAMAGED = [
    ("", 1, "is empty"),
    ("\n", 1, "is empty"),
    (json.dumps(good())[:400], 1, "is no JSON, or it was cut off"),
    ("hello", 1, "is no JSON"),
    ("[" * 100_000, 1, "is damaged (it is nested too deeply)"),
    (changed("examples.0.radius", float("nan")), 1, "NaN is not allowed"),
    ("[]", 1, "is no result of caa attack"),
    ("{}", 1, "is no result of caa attack"),
    (changed("schema_version", 2), 1, "was written in schema 2, this is 1"),
    (changed("schema_version", "1"), 1, 'is damaged (schema_version is "1", not a whole number)'),
    (changed("command", "certify"), 1, "is damaged (image 0: outcome is 'attacked', not one of abstained, certified"),
    (changed("command", "compare"), 2, "is a result of caa compare"),
    (changed("command", ["attack"]), 1, "is no result of caa attack or caa certify: its command is a list"),
    (changed("examples", 5), 1, "is damaged (examples is 5, not a list)"),
    (changed("examples.0", 5), 1, "is damaged (examples[0] is 5, not an object)"),
    (changed("examples.0.index", "0"), 1, 'is damaged (examples[0].index is "0", not a whole number at least 0)'),
    (changed("examples.0.index", True), 1, "is damaged (examples[0].index is true, not a whole number"),
    (changed("examples.0.index", 10**6), 1, "(image 1000000: index is 1000000, and the data set has 100 images)"),
    (
        changed("examples.0.outcome", "won"),
        1,
        "is damaged (image 0: outcome is 'won', not one of abstained, attacked",
    ),
    (changed("examples.0.radius", None), 1, "(image 0: radius is missing, and the outcome is attacked)"),
    (changed("examples.0.radius", -1.0), 1, "is damaged (image 0: radius is -1.0, not a number at least 0)"),
    (changed("examples.0.radius", "1.5"), 1, 'is damaged (image 0: radius is "1.5", not a number'),
    (json.dumps(good()).replace('"radius": 1.5', '"radius": 1e999'), 1, "is damaged (image 0: radius is inf, not"),
    (changed("examples.0.seconds", 10**400), 1, "is damaged (image 0: seconds is 1000"),
    (changed("examples.0.label", {}), 1, "is damaged (image 0: label is an object, not a whole number"),
    (
        changed("examples.0.expectation", 1.5),
        1,
        "(image 0: expectation is 1.5, not a number at least 0 and at most",
    ),
    (changed("examples.0.forward_evaluations", None), 1, "is damaged (image 0: forward_evaluations is null, not"),
    (changed("examples.0.certified_radius", None), 1, "(image 0: certified_radius is missing, and the outcome is"),
    (changed("examples.0.adversarial_class", None), 1, "(image 0: adversarial_class is missing, and the outcome is"),
    (changed("examples.0.index", 1), 1, "is damaged (image 1 is in it twice)"),
    (changed("checkpoint", {}), 1, "is damaged (checkpoint.sha256 is missing)"),
    (changed("checkpoint", None), 1, "is damaged (checkpoint is null, not an object)"),
    (changed("surrogate_model", "x"), 1, 'is damaged (surrogate_model is "x", not an object)'),
    (changed("shard", {}), 1, "is missing)"),
    (changed("shard", []), 1, "is damaged (shard is a list, not an object)"),
    (changed("shard", {"index": 3, "count": 3}), 1, "is damaged (there is no shard 3 of 3)"),
    (changed("status", "fine"), 1, 'is damaged (status is "fine", not one of complete, partial, interrupted)'),
    (changed("config.samples", [1]), 1, "is damaged (config.samples is a list, not a whole number at least 1)"),
    (changed("config.iterations", {}), 1, "is damaged (config.iterations is an object, not a whole number)"),
    (changed("config.gradient", []), 1, "is damaged (config.gradient is a list, not a text)"),
    (changed("config.sigma", None), 1, "is damaged (config.sigma is null, not a number above 0)"),
    (changed("config.mean", [0.5, "x"]), 1, 'is damaged (config.mean[1] is "x", not a number)'),
    (changed("config.every", 0), 1, "is damaged (config.every is 0, not a whole number at least 1)"),
    (changed("config.save_adversarial", "a\0b"), 1, "not the name of a file)"),
    (
        changed("config.of_tomorrow", [[[[0.0]]] * 9, float("1e200")]),
        1,
        "(config.of_tomorrow is 1e+200, which is too",
    ),
    (changed("images.files_sha256", 5), 1, "is damaged (images.files_sha256 is 5, not a text)"),
    (changed("images.count", 10**18), 1, "is damaged (images.count is 1000000000000000000, not a whole number at"),
    (changed("summary.seconds", 10**400), 1, "is damaged (summary.seconds is 1000"),
    (changed("environment", []), 1, "is damaged (environment is a list, not an object)"),
    (changed("gaps", "all"), 1, 'is damaged (gaps is "all", not a list)'),
    (changed("merged", [5]), 1, "is damaged (merged[0] is 5, not an object)"),
]


@pytest.mark.parametrize(("text", "code", "problem"), DAMAGED, ids=[str(n) for n in range(len(DAMAGED))])
def test_files_that_are_no_results_are_refused(tmp_path, text, code, problem):
    path = tmp_path / "a.json"
    path.write_text(text)
    assert_clean_error(caa("compare", path), code, problem, " ")
    assert str(path) in caa("compare", path).stderr


def test_what_can_not_be_read_is_refused(tmp_path):
    assert_clean_error(caa("compare", tmp_path / "a.json"), 1, "can't be read (No such file", "caa attack")
    assert_clean_error(caa("compare", tmp_path), 1, "can't be read")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    assert_clean_error(caa("compare", tmp_path / "b.json"), 1, "it is no text")
    (tmp_path / "a.json.jsonl").write_text("{}\n{}\n")
    assert_clean_error(caa("compare", tmp_path / "a.json.jsonl"), 2, "is the record of a run", "--resume")


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (changed("config.alpha", 0.01), "different settings: alpha (0.005 and 0.01)"),
        (changed("config.mean", [0.1]), "different settings: mean ([0.5] and [0.1])"),
        (changed("config.samples", 100), "different settings: selection_samples (1500 and 100)"),
        (changed("config.verify_samples", 100), "different settings: verify_samples (not set and 100)"),
        (changed("config.finish", "none"), "different settings: finish (ray and none)"),
        (changed("config.seed", 1), "different settings: seed (0 and 1)"),
        (changed("images.count", 99), "are over different data: 100 images and 99 images"),
        (json.dumps(document([record(0, 1.0)], surrogate="gumbel")), "over different images: 1 is in"),
        (changed("examples.0.label", 9, surrogate="gumbel"), "0 has another label"),
        (json.dumps(good()), "overlap: both hold image 0"),
        (json.dumps(document([record(9, 1.0)], shard=Shard(1, 3), limit=30)), "shard 0, 2 of 3 is missing"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path, other, problem):
    files = [write(tmp_path / "a.json", good()), tmp_path / "b.json"]
    files[1].write_text(other)
    assert_clean_error(caa("compare", *files, "--output", tmp_path / "c.json"), 2, problem)
    assert not (tmp_path / "c.json").exists()


def test_files_whose_searches_alone_differ_are_compared_and_say_so(tmp_path):
    """pgd drew other noise a step than caa, and took σ to be another; clean prediction and proof are alike."""
    rule = {"selection_samples": 1500, "certify_samples": 9000, "verify_samples": 9000}
    files = [
        write(tmp_path / "a.json", good(**rule)),
        write(tmp_path / "b.json", good(**rule, attack="pgd", samples=500, attack_sigma=0.25)),
        write(tmp_path / "c.json", good(**rule, attack="ddn", attack_sigma=0.5)),
    ]
    assert caa("compare", *files, "--output", tmp_path / "o.json").exit_code == 0
    found = read_strict(tmp_path / "o.json")
    assert list(found["attacks"]) == ["caa", "pgd:samples=500:attack-sigma=0.25", "ddn"]
    assert "samples" not in found["config"]
    assert found["config"]["iterations"] == 100


def test_a_refusal_says_with_what_to_repeat(tmp_path):
    files = [write(tmp_path / "a.json", good()), write(tmp_path / "b.json", good(samples=100, mean=[0.1]))]
    result = caa("compare", *files)
    assert_clean_error(result, 2, "mean ([0.5] and [0.1])", "--mean 0.5 --selection-samples 1500")


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({}, "repeat the second without --target"),
        ({"seed": 1}, "repeat the second with --seed 1 and without --target"),
        ({"target": "3"}, "repeat the second with --target 3"),
        ({"target": "file sha256 0123456789abcdef", "target_file": "my targets.csv"}, "--target 'my targets.csv'"),
    ],
)
def test_what_a_refusal_says_to_repeat_can_be_typed(tmp_path, settings, advice):
    files = [write(tmp_path / "a.json", good(**settings)), write(tmp_path / "b.json", good(target="second"))]
    assert_clean_error(caa("compare", *files), 2, "and second)", advice)


def test_files_from_before_the_settings_of_the_search_were_its_own_are_read(tmp_path):
    old = good()
    for name in ("attack_sigma", "selection_samples"):
        del old["config"][name]
    new = good(selection_samples=1500, attack_sigma=0.5, surrogate="gumbel")
    files = [write(tmp_path / "a.json", old), write(tmp_path / "b.json", new)]
    assert caa("compare", *files, "--output", tmp_path / "o.json").exit_code == 0
    assert list(read_strict(tmp_path / "o.json")["attacks"]) == ["caa", "caa:surrogate=gumbel"]


@pytest.mark.parametrize(
    ("shards", "problem"),
    [
        ([Shard(0, 2), Shard(0, 2)], "overlap: both hold image 0"),
        ([Shard(0, 2), Shard(1, 2), Shard(1, 3)], "overlap: both hold image 1"),
        ([Shard(0, 3), Shard(2, 3)], "shard 1 of 3 is missing"),
    ],
    ids=["the same twice", "cut otherwise", "one missing"],
)
def test_shards_that_overlap_or_are_missing_are_refused(tmp_path, shards, problem):
    files = [
        write(
            tmp_path / f"{n}.json",
            document([record(i, 2.0) for i in range(shard.index, 6, shard.count)], shard=shard),
        )
        for n, shard in enumerate(shards)
    ]
    assert_clean_error(caa("compare", *files), 2, problem, " ")


def test_one_file_named_twice_is_refused(tmp_path):
    path = write(tmp_path / "a.json", good())
    assert_clean_error(caa("compare", path, path), 2, "overlap")


def test_selections_that_do_not_overlap_are_joined(tmp_path):
    """--limit 2, and --skip 2 --limit 2: no shards, but just as good."""
    files = [
        write(tmp_path / f"{skip}.json", document([record(i, 2.0) for i in (skip, skip + 1)], skip=skip, limit=2))
        for skip in (0, 2)
    ]
    assert caa("compare", *files, "--output", tmp_path / "c.json").exit_code == 0
    assert read_strict(tmp_path / "c.json")["attacks"]["caa"]["attacked"] == 4


def test_an_image_that_failed_is_left_out_of_all(tmp_path):
    other = document(
        [record(0, 2.0), record(1, None, outcome="failed", certified=None), record(2, 9.0)], iterations=9
    )
    files = [
        write(tmp_path / "a.json", document([record(i, 1.5 + i) for i in range(3)])),
        write(tmp_path / "b.json", other),
    ]
    result = caa("compare", *files, "--output", tmp_path / "c.json")
    assert result.exit_code == 3
    assert "left out: 1 image (1) failed in caa:iterations=9" in result.stderr
    found = read_strict(tmp_path / "c.json")
    assert found["status"] == "partial"
    assert [[e["index"] for e in a["examples"]] for a in found["attacks"].values()] == [[0, 2], [0, 2]]


def test_of_an_interrupted_run_the_finished_images_count(tmp_path):
    short = {**document([record(1, 2.0), record(3, 2.0)], iterations=9), "status": "interrupted"}
    files = [write(tmp_path / "a.json", good()), write(tmp_path / "b.json", short)]
    result = caa("compare", *files, "--output", tmp_path / "c.json")
    assert result.exit_code == 3
    assert "caa:iterations=9 was interrupted after 2 images" in result.stderr
    assert "compared on 2 images that all attacks have finished" in result.stderr
    assert read_strict(tmp_path / "c.json")["summary"]["eligible"] == 2
    nothing = write(tmp_path / "d.json", {**document([], iterations=9), "status": "interrupted"})
    assert_clean_error(caa("compare", files[0], nothing), 2, "no finished image in common", "--resume")


def test_on_request_the_images_that_all_have_are_compared(tmp_path):
    """A dear attack on fewer images, and one of which a shard is missing. The table is that of these images alone."""
    few = document([record(i, 2.0 + i) for i in (1, 2)], iterations=9, skip=1, limit=2)
    half = document([record(i, 3.0) for i in range(0, 6, 2)], attack="pgd", shard=Shard(0, 2), limit=6)
    files = [write(tmp_path / f"{n}.json", found) for n, found in enumerate([good(), few, half])]
    assert_clean_error(caa("compare", *files[:2]), 2, "over different images: 0 is in", "--common-images")
    assert_clean_error(caa("compare", *files), 2, "shard 1 of 2 is missing", "caa compare --common-images")
    result = caa("compare", *files, "--common-images", "--output", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    assert "compared on 1 image that all attacks have finished" in result.stderr
    assert f"shard 1 of 2 is missing beside {files[2]}" in result.stderr
    found = read_strict(tmp_path / "c.json")
    assert (found["status"], found["indices"]) == ("complete", [2])
    assert [[e["radius"] for e in a["examples"]] for a in found["attacks"].values()] == [[3.5], [4.0], [3.0]]
    again = caa("compare", tmp_path / "c.json", "--common-images")
    assert_clean_error(again, 2, "--common-images is of results of attacks", "leave it out")
    run = caa("compare", "--checkpoint", "demo", "--attacks", "caa", "--common-images")
    assert_clean_error(run, 2, "--common-images is of results to read", "caa compare a.json b.json --common-images")
    apart = write(tmp_path / "d.json", document([record(7, 2.0)], iterations=9, skip=7))
    assert_clean_error(caa("compare", files[0], apart, "--common-images"), 2, "no finished image in common")


def test_images_that_are_eligible_in_one_file_only_are_left_out_and_said(tmp_path):
    other = [record(i, 1.5 + i, certified=1.1) for i in range(4)]
    other[2] = record(2, None, outcome="abstained", certified=None)
    files = [write(tmp_path / "a.json", good()), write(tmp_path / "b.json", document(other, iterations=9))]
    result = caa("compare", *files, "--output", tmp_path / "c.json")
    assert result.exit_code == 0
    assert "1 image (2) eligible in some files only" in result.stderr
    assert "certified radii of 3 images (0, 1, 3) differ" in result.stderr
    assert read_strict(tmp_path / "c.json")["summary"]["eligible"] == 3


def test_nothing_eligible_is_a_table_of_dashes(tmp_path):
    path = write(tmp_path / "a.json", document([record(0, None, outcome="misclassified", certified=None)]))
    result = caa("compare", path, "--bootstrap", "40", "--output", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    assert read_strict(tmp_path / "c.json")["attacks"]["caa"]["best_share"] is None
    assert "0 eligible of 1 image" in result.stdout


def test_files_without_class_expectations_still_compare(tmp_path):
    """Those of before it was recorded."""
    found = good()
    for example in found["examples"]:
        del example["expectation"]
    path = write(tmp_path / "a.json", found)
    result = caa("compare", path, "--figure-excess", tmp_path / "e.png", "--html", tmp_path / "c.html")
    assert result.exit_code == 0, result.output
    assert "no attacked image has a class expectation" in (tmp_path / "c.html").read_text()
