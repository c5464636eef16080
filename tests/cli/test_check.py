"""caa check: finished results against what is required of them."""

from __future__ import annotations

from comparing import FAILED, comparison_of, document, record, write
from merging import shards
from requiring import CERTIFICATES, RECORDS, certification, unmet
from support import assert_clean_error, caa, parse_strict


def check(*words):
    return caa("check", *words)


def test_check_judges_every_file(tmp_path):
    good, bad = write(tmp_path / "good.json", document(RECORDS)), write(tmp_path / "bad.json", document(RECORDS[2:]))
    words = ("--require", "success_rate>0.5", "--require", "median_radius >= 1.5")
    assert check(good, *words).exit_code == 0
    result = check(good, bad, good, *words)
    assert result.exit_code == 4
    assert unmet(result.stderr) == [
        f"{bad}: success_rate>0.5 (found 0)",
        f"{bad}: median_radius >= 1.5 (found null)",
    ]
    assert unmet(check(bad, *words, "--quiet").stderr) == unmet(result.stderr)
    result = check(good, bad, *words, "--json")
    assert result.exit_code == 4
    assert parse_strict(result.stdout) == {
        "files": [str(good), str(bad)],
        "requirements": [
            {"file": str(good), "requirement": "success_rate>0.5", "found": 2 / 3, "met": True},
            {"file": str(good), "requirement": "median_radius >= 1.5", "found": 1.5, "met": True},
            {"file": str(bad), "requirement": "success_rate>0.5", "found": 0.0, "met": False},
            {"file": str(bad), "requirement": "median_radius >= 1.5", "found": None, "met": False},
        ],
    }


def test_check_believes_the_examples_not_the_summary(tmp_path):
    found = document(RECORDS)
    found["summary"]["success_rate"] = 1.0
    assert check(write(tmp_path / "a.json", found), "--require", "success_rate>=0.9").exit_code == 4


def test_check_reads_certifications_comparisons_and_merged_results(tmp_path):
    path = write(tmp_path / "certify.json", certification(CERTIFICATES))
    assert check(path, "--require", "certified_accuracy@0.6==0.5", "--require", "median_radius==0.3").exit_code == 0

    comparison = comparison_of([{r.index: r for r in RECORDS}, {r.index: r for r in RECORDS}])
    label = comparison.labels[0]
    path = write(tmp_path / "compare.json", comparison.to_json("complete"))
    assert check(path, "--require", f"{label}.best_share>0", "--require", "broken_by_any==2").exit_code == 0
    result = check(path, "--require", f"{label}.median_radius<1")
    assert (result.exit_code, unmet(result.stderr)) == (4, [f"{path}: {label}.median_radius<1 (found 1.5)"])
    assert_clean_error(
        check(path, "--require", f"{label}.median_radios<1"),
        2,
        "caa compare has no field",
        f"did you mean {label}.median_radius?",
    )

    path = tmp_path / "all.json"
    assert caa("merge", *shards(tmp_path), "--output", path).exit_code == 0
    assert check(path, "--require", "eligible==7").exit_code == 0


def test_check_refuses_a_field_that_one_of_the_files_has_not(tmp_path):
    path = write(tmp_path / "a.json", document(RECORDS))
    for name, nearest in {"median_radus": "median_radius", "sucess_rate": "success_rate"}.items():
        result = check(path, "--require", "eligible>=1", "--require", f"{name}>=1")
        assert_clean_error(result, 2, f"no field '{name}'", f"did you mean {nearest}? its fields: examples, eligible")
    assert_clean_error(check(path, "--require", "certified_accuracy@0.5>0"), 2, "caa attack has no field")


def test_check_does_not_judge_an_interrupted_run(tmp_path):
    whole = write(tmp_path / "a.json", document(RECORDS))
    part = write(tmp_path / "b.json", {**document(RECORDS), "status": "interrupted", "resume": "caa attack --resume"})
    result = check(part, whole, "--require", "success_rate>=0.5")
    assert result.exit_code == 3
    assert "b.json is of a run that was interrupted, so it is not judged" in result.stderr
    assert "finish it with: caa attack --resume" in result.stderr
    assert check(part, "--require", "success_rate>=0.5").stdout == ""
    assert check(part, whole, "--require", "success_rate>=0.9").exit_code == 4
    assert check(whole, part, "--require", "success_rate>=0.9").exit_code == 4


def test_check_says_how_an_interrupted_comparison_goes_on(tmp_path):
    comparison = comparison_of([{r.index: r for r in RECORDS}, {r.index: r for r in RECORDS}])
    words = {"command_line": "caa compare --attacks caa,pgd"}
    path = write(tmp_path / "compare.json", {**comparison.to_json("interrupted"), **words})
    result = check(path, "--require", "eligible>=1")
    assert result.exit_code == 3
    assert "finish it with: caa compare --attacks caa,pgd --resume\n" in result.stderr


def test_check_judges_a_partial_result(tmp_path):
    path = write(tmp_path / "a.json", document([*RECORDS, record(4, None, outcome=FAILED)]))
    assert check(path, "--require", "outcomes.failed==1").exit_code == 0
    assert check(path, "--require", "outcomes.failed==0").exit_code == 4


def test_check_needs_files_and_requirements(tmp_path):
    path = write(tmp_path / "a.json", document(RECORDS))
    assert_clean_error(check(path), 2, "--require")
    assert_clean_error(check("--require", "eligible>=1"), 2, "the results to check")


def test_check_refuses_what_is_damaged_or_foreign(tmp_path):
    whole = write(tmp_path / "a.json", document(RECORDS))
    comparison = comparison_of([{r.index: r for r in RECORDS}]).to_json("complete")
    (label,) = comparison["attacks"]
    entry = comparison["attacks"][label]
    spoilt = [
        {**comparison, "attacks": []},
        {**comparison, "attacks": {label: 3}},
        {**comparison, "attacks": {label: {**entry, "median_radius": "1"}}},
        {**comparison, "attacks": {label: {**entry, "median_radius": 10**400}}},
        {**comparison, "attacks": {label: {**entry, "outcomes": [1]}}},
        {**comparison, "summary": {"eligible": True}},
        {**comparison, "summary": 5},
        {name: value for name, value in comparison.items() if name != "status"},
    ]
    for found in spoilt:
        path = write(tmp_path / "b.json", found)
        assert_clean_error(check(whole, path, "--require", "eligible>=9"), 1, f"{path} is damaged")
    for text, code in {"": 1, "{": 1, "[]": 1, "{}": 1, '{"schema_version": 1, "command": "train"}': 1}.items():
        (tmp_path / "c.json").write_text(text)
        assert_clean_error(check(whole, tmp_path / "c.json", "--require", "eligible>=9"), code, "c.json")
    assert_clean_error(check(tmp_path / "none.json", "--require", "eligible>=9"), 1, "can't be read")


def test_a_shard_s_comparison_of_no_images_meets_nothing(tmp_path):
    path = write(
        tmp_path / "a.json", {"schema_version": 1, "status": "complete", "command": "compare", "attacks": {}}
    )
    result = check(path, "--require", "caa.best_share>=0")
    assert (result.exit_code, unmet(result.stderr)) == (
        4,
        [f"{path}: caa.best_share>=0 (found null: no image is eligible)"],
    )
