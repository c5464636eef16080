"""Names for attacks and files, and the attack that the others are held against."""

from __future__ import annotations

import json

import pytest
from comparing import document, record, write
from support import CHEAP, assert_clean_error, attack, caa, parse_strict, read_strict

from caa_cli.config.named_attacks import NamedAttack, parse_attacks, parse_sweeps, swept


def result(path, radii=(1.5, 2.0, None), **settings):
    return write(path, document([record(i, r) for i, r in enumerate(radii)], **settings))


def labels(*words):
    shown = caa("compare", *words, "--json")
    assert shown.exit_code == 0, shown.output
    return list(parse_strict(shown.stdout)["attacks"])


def test_a_name_goes_into_label_file_and_result_and_is_there_when_files_are_read(tmp_path):
    words = [*CHEAP, "--limit", "1", "--attacks", "paper=caa:surrogate=gumbel:temperature=1,caa"]
    run = caa("compare", *words, "--output", tmp_path / "c.json", "--figure", tmp_path / "c.svg")
    assert run.exit_code == 0, run.output
    assert "paper (1 of 2)" in run.stderr
    assert "paper" in run.stdout
    assert list(read_strict(tmp_path / "c.json")["attacks"]) == ["paper", "caa"]
    files = [tmp_path / "c.paper.json", tmp_path / "c.caa.json"]
    assert read_strict(files[0])["config"]["name"] == "paper"
    assert read_strict(files[1])["config"]["name"] is None
    assert labels(*files) == ["paper", "caa"]
    again = caa("compare", *words, "--output", tmp_path / "c.json", "--resume", "--json")
    assert parse_strict(again.stdout)["attacks"]["paper"]["examples"] == read_strict(files[0])["examples"]


def test_an_attack_alone_can_have_a_name(tmp_path):
    attack(tmp_path / "a.json", "--limit", "1", "--name", "mine")
    assert labels(tmp_path / "a.json") == ["mine"]
    assert_clean_error(caa("attack", *CHEAP, "--name", "a b"), 2, "--name 'a b' is not a plain word")


def test_files_can_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result(tmp_path / "a.json")
    result(tmp_path / "b.json", surrogate="gumbel", name="old")
    result(tmp_path / "c=1.json", surrogate="gumbel", temperature=2.0)
    assert labels("a.json", "b.json") == ["caa", "old"]
    assert labels("new=b.json", "first=a.json", "c=1.json") == ["new", "first", "caa:surrogate=gumbel:temperature=2"]
    assert labels(f"far={tmp_path}/a.json", tmp_path / "c=1.json") == ["far", "caa:surrogate=gumbel:temperature=2"]


def test_shards_of_one_name_are_one_attack(tmp_path):
    one = result(tmp_path / "a.json", skip=0, limit=3)
    two = write(tmp_path / "b.json", document([record(3, 2.0)], skip=3, limit=1))
    assert labels(f"x={one}", f"x={two}") == ["x"]


def test_runs_of_one_attack_under_two_names_are_two_attacks(tmp_path):
    one, two = result(tmp_path / "a.json"), result(tmp_path / "b.json", (1.4, 2.0, 3.0))
    assert_clean_error(caa("compare", one, two), 2, "overlap")
    assert labels(f"before={one}", f"after={two}") == ["before", "after"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a b", "is not a plain word"),
        ("", "is not a plain word"),
        ("-x", "is not a plain word"),
        ("a" * 61, "is not a plain word"),
        ("é", "is not a plain word"),
        ("pgd", "'pgd' is the name of an attack"),
    ],
)
def test_what_a_name_can_not_be(tmp_path, name, problem):
    words = ["--checkpoint", "demo", "--output", tmp_path / "c.json", "--attacks"]
    assert_clean_error(caa("compare", *words, f"{name}=caa,ddn"), 2, problem, " ")
    assert_clean_error(caa("compare", "--", f"{name}={result(tmp_path / 'a.json')}"), 2, problem, " ")


def test_a_name_that_clashes_is_refused(tmp_path):
    words = ["--checkpoint", "demo", "--output", tmp_path / "c.json", "--attacks"]
    assert_clean_error(caa("compare", *words, "x=caa,x=ddn"), 2, "--attacks names x twice", "another name")
    assert_clean_error(caa("compare", *words, "x=caa,y=caa"), 2, "x and y of --attacks are one attack")
    one, two = result(tmp_path / "a.json", name="x"), result(tmp_path / "b 2.json", name="x", iterations=9)
    assert_clean_error(caa("compare", one, two), 2, "are both called x", f"caa compare 'NAME={two}' …")
    assert labels(one, f"short={two}") == ["x", "short"]


def test_a_sweep_extends_the_name():
    (one, two) = swept(parse_attacks("x=caa:step-min=0.1"), parse_sweeps(["step-max=0.2,0.3"]))
    assert (one.label, two.label) == ("x:step-max=0.2", "x:step-max=0.3")
    assert one.settings == {"step_min": "0.1", "step_max": "0.2"}


def test_a_setting_is_no_name():
    assert NamedAttack.parse("caa:step-min=0.2").name is None
    assert NamedAttack.parse(" long = caa : step-min = 0.2 ") == NamedAttack("caa", {"step_min": "0.2"}, "long")


def test_the_reference_is_the_first_unless_it_is_named(tmp_path):
    one, two = result(tmp_path / "a.json"), result(tmp_path / "b.json", (1.0, 4.0, 3.0), iterations=9)
    found = parse_strict(caa("compare", one, two, "--json").stdout)
    assert found["reference"] == "caa"
    assert found["attacks"]["caa:iterations=9"]["nearer_share"] == 2 / 3
    assert found["attacks"]["caa"]["nearer_share"] is None
    found = caa("compare", one, two, "--json", "--reference", "caa:iterations=9")
    found = parse_strict(found.stdout)
    assert found["reference"] == "caa:iterations=9"
    assert found["attacks"]["caa"]["nearer_share"] == 1 / 3
    shown = caa("compare", one, two, "--reference", "caa:iterations=9").stdout
    assert "against caa:iterations=9" in " ".join(shown.split())
    assert_clean_error(caa("compare", one, two, "--reference", "x"), 2, "--reference x is none", "caa:iterations=9")
    words = ["--checkpoint", "demo", "--attacks", "caa,ddn", "--output", tmp_path / "c.json"]
    assert_clean_error(caa("compare", *words, "--reference", "pgd"), 2, "--reference pgd is none of the attacks")


def test_new_figures_can_be_required_and_an_infinite_median_meets_nothing(tmp_path):
    one, two = result(tmp_path / "a.json"), result(tmp_path / "b.json", (1.0, None, None), iterations=9)
    met = ["caa.overall_median_radius==2", "caa:iterations=9.both_attacked==1", "caa.optimality>0"]
    words = [word for text in met for word in ("--require", text)]
    assert caa("compare", one, two, *words, "--output", tmp_path / "c.json").exit_code == 0
    assert caa("check", tmp_path / "c.json", *words).exit_code == 0
    failing = caa("compare", one, two, "--require", "caa:iterations=9.overall_median_radius<=9")
    assert failing.exit_code == 4
    assert "(found null)" in failing.stderr


def test_documents_of_version_0_1_are_still_judged(tmp_path):
    """They have neither a reference nor the figures that came later."""
    shown = parse_strict(caa("compare", result(tmp_path / "a.json"), "--json").stdout)
    new = {"reference", "indices", "command_line", "class_names"}
    old = {name: value for name, value in shown.items() if name not in new}
    kept = ("best_share", "success_rate", "eligible", "files", "settings", "examples", "median_radius", "outcomes")
    old["attacks"] = {"caa": {name: shown["attacks"]["caa"][name] for name in kept}}
    (tmp_path / "c.json").write_text(json.dumps(old))
    assert caa("check", tmp_path / "c.json", "--require", "caa.best_share>=0.6").exit_code == 0
    assert caa("check", tmp_path / "c.json", "--require", "caa.optimality>=0").exit_code == 4
