"""`--target` of the commands: what is refused, and what a result says of its targets."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import CHEAP, assert_clean_error, caa


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
        ("--target 7 --indices 0,17", "each of the 2 images is of its target's class already", "--indices"),
        ("--target second --attack deepfool", "deepfool can't be after one class", "caa-newton"),
        ("--target second --rivals 3", "--rivals 3 follows several classes", "leave one"),
        ("--target second --attack own.py:attack", "own.py:attack can't be after one class", "caa-newton"),
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
