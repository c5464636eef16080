"""`--target`: what it may say, a file with a class for each image, and what of it decides a result."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.differences import differences
from caa_cli.config.targets import Classes, check_covers, random_class, read_targets, target_or_file
from caa_cli.errors import UsageError

NAMES = Classes(4, ("airplane", "Great white, shark", "cat", "cat"))
PLAIN = Classes(4)


def test_a_class_by_number_or_name():
    assert NAMES.number_of("--target", "0") == NAMES.number_of("--target", "Airplane") == 0
    assert NAMES.number_of("--target", 1) == NAMES.number_of("--target", " great white, shark ") == 1
    assert NAMES.shown(0) == "airplane (class 0)"
    assert PLAIN.shown(3) == "class 3"


@pytest.mark.parametrize(
    ("classes", "said", "problem", "hint"),
    [
        (NAMES, "4", "there is no class 4", "0 to 3"),
        (NAMES, "-1", "there is no class -1", "0 to 3"),
        (NAMES, "airplan", "there is no class 'airplan'", "did you mean airplane?"),
        (NAMES, "1_0", "there is no class '1_0'", "airplane"),
        (NAMES, "cat", "classes 2 and 3 are both called 'cat'", "number"),
        (PLAIN, "cat", "there is no class 'cat'", "have no names"),
    ],
)
def test_no_class(classes: Classes, said: str, problem: str, hint: str):
    with pytest.raises(UsageError, match=problem) as refused:
        classes.number_of("--target", said)
    assert hint in str(refused.value.hint)


def test_a_rule_goes_before_a_file_and_a_file_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("second", "7", "airplane"):
        Path(name).write_text("0")
    Path("cat").mkdir()
    assert target_or_file("second") == ("second", None)
    assert target_or_file("7") == ("7", None)
    assert target_or_file("airplane") == (None, Path("airplane"))
    assert target_or_file("cat") == ("cat", None)  # class folders are called as their classes
    assert target_or_file("missing.csv") == (None, Path("missing.csv"))


FILES = [
    "index,class\n0,1\n2,airplane\n",
    "# chosen by hand\n0 1   # the shark\n\n2\tairplane\n",
    "2;0\n0;Great white, shark\n",
    json.dumps({"0": 1, "2": "airplane"}),
    '{"index": 0, "target": 1}\n{"index": 2, "target": "airplane", "label": 3}\n',
    json.dumps([{"index": 0, "target": 1}, {"index": 2, "target": 0}]),
    "﻿0,1\n2,0\n",
]


@pytest.mark.parametrize("text", FILES)
def test_files_with_indices(tmp_path, text: str):
    file = tmp_path / "targets"
    file.write_text(text, encoding="utf-8")
    assert read_targets(file, 3, NAMES) == {0: 1, 2: 0}


@pytest.mark.parametrize("text", ["1\nairplane\n2\n", '[1, "airplane", 2]', "# three\n1\n\nAirplane\n2"])
def test_files_without_indices_are_of_the_images_from_0_on(tmp_path, text: str):
    file = tmp_path / "targets"
    file.write_text(text)
    assert read_targets(file, 3, NAMES) == {0: 1, 1: 0, 2: 2}


def test_one_json_line_is_a_line_and_not_an_object(tmp_path):
    file = tmp_path / "targets.jsonl"
    file.write_text('{"index": 2, "target": 1}')
    assert read_targets(file, 3, NAMES) == {2: 1}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0,1\n1,7\n", "line 2: there is no class 7"),
        ("0,1\n5,1\n", "line 2: there is no image 5"),
        ("0,1\n0,2\n", "line 2: image 0 has a target already"),
        ("0,1\ncat\n", "line 2: 'cat' is not the index of an image"),
        ('{"0": 1, "0": 2}', "'0' comes twice"),
        ('{"a": 1}', "'a' is not the index"),
        ('{"0": 1.5}', "1.5 is no class"),
        ('{"0": true}', "True is no class"),
        ('{"0": null}', "None is no class"),
        ("[1, 2", "can't be read as JSON"),
        ('{"index": 0}\n{"index": 1}', "no object with index and target"),
        ("[" * 100_000, "can't be read as JSON"),
        ("", "names no class"),
        ("# nothing\n", "names no class"),
        ("1\n2\n3\n1\n", "there is no image 3"),
    ],
)
def test_damaged_files(tmp_path, text: str, problem: str):
    file = tmp_path / "targets"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_targets(file, 3, NAMES)
    assert problem in refused.value.problem
    assert str(file) in refused.value.problem


def test_files_that_can_not_be_read(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.csv", "binary"):
        with pytest.raises(UsageError, match="can't be read"):
            read_targets(tmp_path / name, 3, NAMES)


def test_every_image_needs_a_target():
    check_covers(Path("t"), {1: 0, 2: 0}, [1, 2])
    with pytest.raises(UsageError, match="no class for image 3 and 1 more"):
        check_covers(Path("t"), {1: 0}, [1, 3, 4])


def test_random_targets_are_fixed_by_seed_and_index_and_spread_over_the_others():
    drawn = [random_class(0, index, 2, 4) for index in range(3000)]
    assert drawn == [random_class(0, index, 2, 4) for index in range(3000)]
    counts = Counter(drawn)
    assert counts.keys() == {0, 1, 3}
    assert all(900 < count < 1100 for count in counts.values())
    assert drawn[:50] != [random_class(1, index, 2, 4) for index in range(50)]
    assert {random_class(0, index, 1, 2) for index in range(20)} == {0}


def plan(**settings: object) -> AttackPlan:
    return AttackPlan(checkpoint="demo", **settings)  # type: ignore[arg-type]


def test_older_fingerprints_stay_and_a_target_changes_them():
    assert plan().resolve(0.5).fingerprint("abc") == "d0ca3a9c4147a8ed"  # that of version 0.2.0
    of = {target: plan(target=target).fingerprint("abc") for target in (None, "second", "random", "3")}
    assert len(set(of.values())) == 4


def test_one_class_is_one_target_however_it_is_called(tmp_path):
    by_name, by_number = (plan(target=said).with_classes(NAMES) for said in ("airplane", "0"))
    assert by_name.fingerprint("abc") == by_number.fingerprint("abc")
    here, there = tmp_path / "a.csv", tmp_path / "b.csv"
    here.write_text("0,1\n")
    there.write_text("0,1\n")
    assert plan(target_file=here).with_classes(NAMES).fingerprint("abc") == plan(target_file=there).with_classes(
        NAMES
    ).fingerprint("abc")
    there.write_text("0,2\n")
    mine, other = (plan(target_file=file).with_classes(NAMES) for file in (here, there))
    (said,) = differences(mine.config(), other.config(), other.compared_keys())
    assert said.startswith("target (file sha256 ")


def test_a_result_of_before_there_were_targets_is_an_untargeted_one():
    now = plan()
    before = {name: value for name, value in now.config().items() if not name.startswith("target")}
    assert differences(before, now.config(), now.compared_keys()) == []
    targeted = plan(target="second")
    assert differences(before, targeted.config(), targeted.compared_keys()) == ["target (not set there, second here)"]


TAKE_TARGETS = {"caa", "caa-newton", "pgd", "cw", "autoattack", "ddn", "fmn", "alma"}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_that_can_not_be_after_a_class_refuse_it(attack: str):
    if attack in TAKE_TARGETS:
        assert plan(attack=attack, target="second").targeted
        return
    with pytest.raises(UsageError, match=f"--target: {attack} can't aim at a class") as refused:
        plan(attack=attack, target="second")
    assert "caa-newton" in str(refused.value.hint)
    with pytest.raises(UsageError, match="can't aim at a class"):
        plan(attack=attack, target_file=Path("t.csv"))


def test_several_rivals_and_a_target_contradict_each_other():
    with pytest.raises(UsageError, match="--rivals 3"):
        AttackPlan.of(checkpoint="demo", attack="caa", rivals=3, target="second")
    with pytest.raises(UsageError, match="--target is empty"):
        plan(target=" ")
