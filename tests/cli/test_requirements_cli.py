"""--require: what each command does with it, before its work and after."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path

import pytest
from comparing import FAILED, document, record, write
from forking import fork, signals_itself
from merging import shards
from requiring import CERTIFICATES, RECORDS, certification, unmet
from support import CHEAP, assert_clean_error, caa, in_journal, parse_strict, read_strict

CERTIFY = ["certify", "--checkpoint", "demo", "--samples", "200", "--chunk-size", "256", "--device", "cpu"]
RANKS = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"}
NOTHING = "no image is eligible"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An attack on one image that a requirement stopped, and what was printed."""
    output = tmp_path_factory.mktemp("run") / "attack.json"
    words = ("attack", *CHEAP, "--limit", "1", "--output", output)
    return (
        words,
        output,
        caa(*words, "--json", "--quiet", "--require", "median_radius>=99", "--require", "eligible==1"),
    )


def test_attack_ends_with_exit_code_4_and_all_is_written(run):
    _, output, result = run
    assert result.exit_code == 4
    found = read_strict(output)
    radius = found["summary"]["median_radius"]
    assert unmet(result.stderr) == [f"median_radius>=99 (found {radius:.4g})"]
    # The file is the same whatever is required of it.
    assert parse_strict(result.stdout) == {
        **found,
        "requirements": [
            {"requirement": "median_radius>=99", "found": radius, "met": False},
            {"requirement": "eligible==1", "found": 1, "met": True},
        ],
    }


def test_a_requirement_is_no_part_of_the_configuration(run):
    words, output, _ = run
    before = read_strict(output)
    result = caa(*words, "--resume", "--require", "median_radius < 99")
    assert result.exit_code == 0, result.output
    assert "requirement met: median_radius < 99 (found" in result.stderr
    assert read_strict(output)["examples"] == before["examples"]
    assert read_strict(output)["fingerprint"] == before["fingerprint"]


def test_a_requirement_comes_from_the_environment_and_the_configuration_file_too(run, tmp_path):
    words, _, _ = run
    both = "eligible>=1 eligible>=7"
    assert unmet(caa(*words, "--resume", env={"CAA_ATTACK_REQUIRE": both}).stderr) == ["eligible>=7 (found 1)"]
    spaced = " eligible >= 1\n  eligible>= 7 "
    assert unmet(caa(*words, "--resume", env={"CAA_ATTACK_REQUIRE": spaced}).stderr) == ["eligible>= 7 (found 1)"]
    (tmp_path / "c.toml").write_text('[attack]\nrequire = ["eligible >= 1", "eligible >= 8"]\n')
    result = caa(*words, "--resume", "--config", tmp_path / "c.toml")
    assert (result.exit_code, unmet(result.stderr)) == (4, ["eligible >= 8 (found 1)"])


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("words", "require", "nearest"),
    [
        (["attack"], "median_radus>=1", "median_radius"),
        (["certify"], "average_radius>=1", "average_certified_radius"),
        (["certify"], "certified_accuracy>=1", "certified_accuracy@RADIUS"),
        (["certify", "--radius", "0.5"], "certified_accuracy@0.25>=1", "certified_accuracy@0.5"),
        (
            ["compare", "--attacks", "caa,caa:overshoot=1.2"],
            "caa:overshoot=1.3.best_share>0",
            "caa:overshoot=1.2.best_share",
        ),
        (["compare", "--attacks", "pgd"], "pgd.best>0", "pgd.best_share"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_an_unknown_field_is_refused_before_any_work(tmp_path, words, require, nearest, dry):
    """The model is not even looked for."""
    words = [*words, *dry, "--checkpoint", "none.pt", "--output", tmp_path / "x.json", "--require", require]
    assert_clean_error(caa(*words), 2, "has no field", f"did you mean {nearest}?")
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_is_not_judged():
    assert caa("attack", *CHEAP, "--dry-run", "--require", "eligible>=99").exit_code == 0


def test_certify_has_the_median_radius_and_can_be_stopped(tmp_path):
    output = tmp_path / "c.json"
    words = (*CERTIFY, "--limit", "3", "--output", output)
    result = caa(*words, "--require", "certified_accuracy@0.37>=0.5", "--require", "median_radius>=2")
    assert result.exit_code == 4, result.output
    summary = read_strict(output)["summary"]
    radii = sorted(e["radius"] if e["correct"] else 0.0 for e in read_strict(output)["examples"])
    assert summary["median_radius"] == radii[1] > 0
    assert unmet(result.stderr) == [f"median_radius>=2 (found {radii[1]:.4g})"]
    assert f"median radius       {radii[1]:.3f}" in result.stdout


def test_compare_runs_and_reads(tmp_path):
    output = tmp_path / "compare.json"
    words = ("compare", *CHEAP, "--limit", "1", "--attacks", "caa,caa:overshoot=1.2", "--output", output)
    require = ("--require", "caa:overshoot=1.2.best_share==2", "--require", "caa.success_rate==1")
    result = caa(*words, "--json", *require)
    assert result.exit_code == 4, result.output
    found = parse_strict(result.stdout)
    assert [(verdict["found"], verdict["met"]) for verdict in found.pop("requirements")] == [
        (found["attacks"]["caa:overshoot=1.2"]["best_share"], False),
        (1.0, True),
    ]
    assert found == read_strict(output)
    files = sorted(tmp_path.glob("compare.caa*.json"))
    result = caa("compare", *files, *require)
    assert (result.exit_code, len(unmet(result.stderr))) == (4, 1)
    assert caa("compare", *files, *require[2:]).exit_code == 0
    assert_clean_error(caa("compare", *files, "--require", "pgd.best_share>0"), 2, "no field 'pgd.best_share'")


def test_partial_and_unmet_is_4(tmp_path):
    path = write(tmp_path / "a.json", document([*RECORDS, record(4, None, outcome=FAILED)]))
    assert caa("compare", path).exit_code == 3
    assert caa("compare", path, "--require", "eligible==3").exit_code == 3
    assert caa("compare", path, "--require", "eligible==4").exit_code == 4


def test_merge_judges_the_shards_together(tmp_path):
    files = shards(tmp_path)
    output = tmp_path / "all.json"
    assert_clean_error(
        caa("merge", *files, "--output", output, "--require", "median>=1"), 2, "caa attack has no field"
    )
    assert_clean_error(caa("merge", *files, "--output", output, "--dry-run", "--require", "x>=1"), 2, "no field 'x'")
    assert not output.exists()
    result = caa("merge", *files, "--output", output, "--json", "--require", "eligible>=7", "--require", "eligible>7")
    assert (result.exit_code, unmet(result.stderr)) == (4, ["eligible>7 (found 7)"])
    found = parse_strict(result.stdout)
    assert [verdict["met"] for verdict in found.pop("requirements")] == [True, False]
    assert found == read_strict(output)
    output = tmp_path / "some.json"
    result = caa("merge", *files[:2], "--partial", "--output", output, "--require", "eligible>=7")
    assert (result.exit_code, unmet(result.stderr)) == (4, ["eligible>=7 (found 5)"])
    assert caa("merge", *files[:2], "--partial", "--output", output, "--require", "eligible>=5").exit_code == 3


def test_a_shard_is_judged_alone_but_does_not_end_the_others(tmp_path):
    words = ("attack", *CHEAP, "--limit", "2", "--output", tmp_path / "a.json", "--require", "eligible==2")
    result = caa(*words, "--shard", "auto", env=RANKS)
    assert result.exit_code == 0, result.output
    assert (
        "warning: requirement not met: eligible==2 (found 1), by this shard alone; caa merge --require"
        in result.stderr
    )
    assert caa(*words, "--shard", "0/2").exit_code == 4


def test_a_run_that_tested_nothing_warns_aloud(tmp_path):
    """One sample certifies no image, so none is eligible."""
    words = ("attack", *CHEAP, "--limit", "1", "--certify-samples", "1", "--output", tmp_path / "a.json")
    result = caa(*words, "--quiet")
    assert result.exit_code == 0
    assert f"warning: {NOTHING}" in result.stderr
    result = caa(*words, "--resume", "--require", "eligible>=0")
    assert (result.exit_code, unmet(result.stderr)) == (4, [f"eligible>=0 (found 0: {NOTHING})"])
    shard = ("--limit", "2", "--shard", "1/2", "--certify-samples", "1", "--output", tmp_path / "b.json")
    result = caa("attack", *CHEAP, *shard)
    assert result.exit_code == 0
    assert f"{NOTHING} in this shard" in result.stderr
    assert f"warning: {NOTHING}" not in result.stderr
    compare = caa(
        "compare",
        *CHEAP,
        "--limit",
        "1",
        "--certify-samples",
        "1",
        "--attacks",
        "caa,pgd",
        "--output",
        tmp_path / "c.json",
    )
    assert compare.stderr.count(f"warning: {NOTHING}") == 1
    assert f"warning: {NOTHING}" in caa("compare", tmp_path / "a.json", "--quiet").stderr


def test_a_certification_of_nothing_warns_aloud(tmp_path):
    words = [*CERTIFY, "--limit", "1", "--shard", "auto", "--output", tmp_path / "c.json"]
    result = caa(*words, env={**RANKS, "RANK": "1", "LOCAL_RANK": "1"})
    assert result.exit_code == 0, result.output
    assert "no image was read in this shard" in result.stderr
    assert "warning: no image" not in result.stderr
    path = write(tmp_path / "failed.json", certification(CERTIFICATES[4:]))
    result = caa("merge", path, "--partial", "--output", tmp_path / "all.json", "--require", "examples>=0")
    assert (result.exit_code, unmet(result.stderr)) == (4, ["examples>=0 (found 1: no image was read)"])
    assert "warning: no image was read" in result.stderr


@pytest.mark.slow
def test_an_interrupted_run_is_not_judged(tmp_path):
    output = tmp_path / "attack.json"
    sends = signals_itself(lambda: in_journal(output) >= 1, signal.SIGINT)
    words = ("attack", *CHEAP, "--limit", "30", "--output", output, "--json", "--require", "eligible>=99")
    process = fork(*words, before=sends)
    stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "requirement" not in stderr.replace("--require", "")
    assert "requirements" not in json.loads(stdout)


def test_a_field_in_the_help_of_every_command():
    for command in ("attack", "certify", "compare", "merge", "check"):
        assert "--require" in caa(command, "--help").output


def test_the_workflow_of_the_docs_can_be_run():
    page = (Path(__file__).parents[2] / "docs" / "tutorials" / "ci-gate.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"run: >-\n((?: {10}.*\n)+)", page)
    program, *words = shlex.split(command)
    assert program == "caa"
    assert caa(*words, "--dry-run").exit_code == 0
