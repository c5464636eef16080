"""`--target` of the commands: what is refused, and what a result says of its targets."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from support import CHEAP, CHEAP_SETTINGS, assert_clean_error, attack, caa, read_strict

import caa_cli


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of_demo(*words: str | Path):
    return caa("attack", *(CHEAP if "--attack" not in words else CHEAP[:2]), *words)


@pytest.mark.parametrize(
    ("words", "problem", "hint"),
    [
        ("--target 10", "--target 10: there is no class 10", "0 to 9"),
        ("--target digi", "--target digi: there is no class 'digi'", "did you mean digit 9?"),
        ("--target targets.csv", "--target targets.csv can't be read", "index,class"),
        ("--target 7 --indices 0,17", "every image is of its target's class already", "--indices"),
        ("--target second --attack deepfool", "deepfool can't aim at a class", "caa-newton"),
        ("--target second --rivals 3", "--rivals 3 follows several classes", "leave one"),
        ("--target second --attack own.py:attack", "own.py:attack can't aim at a class", "caa-newton"),
    ],
)
def test_targets_that_are_refused(words: str, problem: str, hint: str):
    Path("own.py").write_text("def attack(classifier, images, labels, generator):\n    return images\n")
    assert_clean_error(of_demo(*words.split()), 2, problem, hint)
    assert not Path("attack.json").exists()


@pytest.mark.parametrize(
    ("text", "problem"),
    [("0,1\n", "names no class for image 1 and 1 more"), ("0,1\n1,digi\n", "line 2: there is no class 'digi'")],
)
def test_files_of_targets_that_are_refused(text: str, problem: str):
    Path("targets.csv").write_text(text)
    assert_clean_error(of_demo("--limit", "3", "--target", "targets.csv"), 2, problem)


def test_the_file_of_targets_is_not_overwritten():
    Path("attack.json").write_text('{"0": 1}')
    refused = of_demo("--limit", "1", "--target", "attack.json", "--overwrite")
    assert_clean_error(refused, 2, "--target")
    assert Path("attack.json").read_text() == '{"0": 1}'


def test_a_dry_run_says_which_class_it_is_after():
    shown = of_demo("--limit", "2", "--target", "digit 3", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "digit 3 (class 3); its own images are left out" in shown.output


def test_a_result_has_the_target_of_each_image_and_its_name():
    found = attack(Path("a.json"), "--target", "second", "--limit", "3")
    assert found["config"]["target"] == "second"
    for example in found["examples"]:
        assert example["target"] not in (None, example["label"])
        assert example["adversarial_class"] in (None, example["target"])
        assert found["class_names"][str(example["target"])] == f"digit {example['target']}"
    assert found["summary"]["attacked"] >= 2


def test_images_of_the_target_are_left_out_and_counted():
    """The demo's first images are 7, 2, 1, 0, 4."""
    found = attack(Path("a.json"), "--target", "digit 1", "--limit", "4")
    assert [example["outcome"] == "label_is_target" for example in found["examples"]] == [False, False, True, False]
    assert (found["summary"]["eligible"], found["summary"]["outcomes"]["label_is_target"]) == (3, 1)
    assert found["config"]["target"] == "1"
    assert caa("attack", *CHEAP, "--limit", "4", "--target", "1", "--output", "a.json").exit_code == 0  # the same run


def test_a_run_goes_on_with_the_same_targets_alone():
    Path("t.csv").write_text("0,3\n1,3\n")
    attack(Path("a.json"), "--target", "t.csv", "--limit", "1")
    words = ["--limit", "2", "--output", "a.json", "--resume"]
    Path("same.json").write_text('{"0": 3, "1": "digit 3"}')
    for target in ("same.json", "3", "second"):
        assert_clean_error(of_demo(*words, "--target", target), 2, "target (file sha256")
    assert_clean_error(of_demo(*words), 2, "target (file sha256")
    Path("t.csv").rename("moved.csv")
    assert of_demo(*words, "--target", "moved.csv").exit_code == 0
    assert [example["target"] for example in read_strict(Path("a.json"))["examples"]] == [3, 3]


def test_a_comparison_has_one_target_for_all_attacks():
    words = [
        "--checkpoint",
        "demo",
        "--samples",
        "100",
        "--verify-samples",
        "1000",
        "--limit",
        "2",
        "--device",
        "cpu",
    ]
    compared = caa("compare", *words, "--target", "random", "--iterations", "8", "--attacks", "caa:step-max=0.8,ddn")
    assert compared.exit_code == 0, compared.output
    document = read_strict(Path("compare.json"))
    assert document["config"]["target"] == "random"
    targets = [[example["target"] for example in entry["examples"]] for entry in document["attacks"].values()]
    assert targets[0] == targets[1]
    refused = caa("compare", *words, "--attacks", "caa:target=3,ddn")
    assert_clean_error(refused, 2, "target has to be the same for all attacks", "--target")
    refused = caa("compare", *words, "--target", "second", "--attacks", "caa,deepfool", "--output", "b.json")
    assert_clean_error(refused, 2, "deepfool can't aim at a class")


def test_results_with_and_without_a_target_are_not_compared():
    attack(Path("a.json"), "--limit", "1")
    attack(Path("b.json"), "--limit", "1", "--target", "second")
    assert_clean_error(caa("compare", "a.json", "b.json"), 2, "target (not set and second)")


def test_python_has_the_targets_of_the_command():
    model, (images, labels) = caa_cli.load("demo", device="cpu"), caa_cli.load_images("demo")
    found = attack(Path("a.json"), "--target", "least-likely", "--limit", "2")
    cheap = {**CHEAP_SETTINGS, "method": "caa"}
    images, labels = images[:2], labels[:2]
    results = caa_cli.attack(model, images, labels, target="least-likely", **cheap)
    assert results.target.tolist() == [example["target"] for example in found["examples"]]
    assert [None if math.isnan(r) else r for r in results.radius] == [e["radius"] for e in found["examples"]]
    each = caa_cli.attack(model, images, labels, target=results.target, **cheap)
    assert each.radius.tolist() == pytest.approx(results.radius.tolist(), nan_ok=True)
    assert caa_cli.attack(model, images, labels, target="digit 7", **cheap).outcome[0] == "label_is_target"
    assert caa_cli.attack(model, images, labels, target=torch.tensor(7), **cheap).target.tolist() == [7, 7]
    assert caa_cli.attack(model, images, labels, **cheap).target.tolist() == [-1, -1]
    for target, problem in (
        ([3], r"target has the shape \(1,\)"),
        ([3.0, 4.0], r"dtype torch\.float64"),
        ([3, 10], "target: there is no class 10"),
        ("digit 77", "target digit 77: there is no class"),
        (labels, "every image"),
    ):
        with pytest.raises(caa_cli.UsageError, match=problem):
            caa_cli.attack(model, images, labels, target=target, **cheap)
