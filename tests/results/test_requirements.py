"""--require: what it may say, which fields there are, and what meets it."""

from __future__ import annotations

import pytest
from comparing import MISCLASSIFIED, comparison_of, document, record, write
from requiring import CERTIFICATES, RECORDS, unmet
from support import assert_clean_error, caa, parse_strict

from caa_cli.display import Display
from caa_cli.errors import DONE, ERROR, INTERRUPTED, PARTIAL, REQUIREMENT_NOT_MET, UsageError
from caa_cli.results.certificates import summarise_certificates
from caa_cli.results.fields import attack_fields, certify_fields, compare_fields
from caa_cli.results.records import summarise
from caa_cli.results.requirements import OPERATORS, Requirement, judge
from caa_cli.run.gate import Gate, annotation

NONE_ELIGIBLE = [record(0, None, outcome=MISCLASSIFIED)]


def verdict(text: str, records=RECORDS):
    (found,) = judge([Requirement.parse(text)], attack_fields(summarise(records, 1.0)))
    return found


# What it may say


@pytest.mark.parametrize(
    ("text", "field", "operator", "bound"),
    [
        ("median_radius>=1.5", "median_radius", ">=", 1.5),
        (" success_rate  <=  1e-1 ", "success_rate", "<=", 0.1),
        ("below_certified==0", "below_certified", "==", 0.0),
        ("outcomes.not_found != .5", "outcomes.not_found", "!=", 0.5),
        ("a>-2.", "a", ">", -2.0),
        ("a<+3", "a", "<", 3.0),
        ("caa:overshoot=1.2.median_radius<2", "caa:overshoot=1.2.median_radius", "<", 2.0),
        (
            "caa:gradient=surrogate-model=a>=b==c.pt.best_share > 0.5",
            "caa:gradient=surrogate-model=a>=b==c.pt.best_share",
            ">",
            0.5,
        ),
    ],
)
def test_a_requirement_is_read(text, field, operator, bound):
    found = Requirement.parse(text)
    assert (found.field, found.operator, found.bound) == (field, operator, bound)


@pytest.mark.parametrize(
    "text",
    [
        *("", "eligible", "eligible=3", ">=3", "eligible>=", "eligible>=three", "eligible>=nan", "eligible>=inf"),
        *("eligible>=1e999", "eligible>=50%", "eligible>=1_000", "eligible>=٣", "eligible>=1 0", "eligible>=0x1"),
    ],
)
def test_what_is_no_requirement_is_refused_before_any_work(text):
    result = caa("attack", "--checkpoint", "no-such-file.pt", "--require", text)
    assert_clean_error(result, 2, "--require")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("median_radius=1.5", "median_radius==1.5"),
        ("median_radius=>1.5", "median_radius>=1.5"),
        ("median_radius =< 1", "median_radius<=1"),
        ("caa:overshoot=1.2.median_radius=>1", "caa:overshoot=1.2.median_radius>=1"),
    ],
)
def test_what_was_meant_by_an_operator_is_named(text, meant):
    with pytest.raises(UsageError, match="is not of the form") as caught:
        Requirement.parse(text)
    assert text in caught.value.problem
    assert f"did you mean '{meant}'?" in (caught.value.hint or "")


def test_no_field_is_made_up_where_there_is_none():
    with pytest.raises(UsageError) as caught:
        Requirement.parse(">=3")
    assert (caught.value.hint or "").startswith("for instance")


@pytest.mark.parametrize(
    ("operator", "met"),
    [(">=", (0, 1, 1)), ("<=", (1, 1, 0)), ("==", (0, 1, 0)), ("!=", (1, 0, 1)), (">", (0, 0, 1)), ("<", (1, 0, 0))],
)
def test_the_operators(operator, met):
    requirement = Requirement.parse(f"x{operator}2")
    assert tuple(map(requirement.is_met_by, (1, 2, 3))) == met


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_null_meets_nothing(operator):
    nothing_found = [record(0, None)]
    assert not verdict(f"median_radius{operator}1", nothing_found).met
    assert str(verdict(f"median_radius{operator}1", nothing_found)) == f"median_radius{operator}1 (found null)"


@pytest.mark.parametrize("text", ["eligible==0", "examples>=0", "median_radius!=1", "outcomes.misclassified==1"])
def test_a_run_without_an_eligible_image_meets_nothing(text):
    assert not verdict(text, NONE_ELIGIBLE).met
    assert str(verdict(text, NONE_ELIGIBLE)).endswith(": no image is eligible)")


def test_the_value_is_shown_with_the_digits_that_the_verdict_needs():
    assert str(verdict("median_radius>=1.5", [record(0, 1.4366849)])) == "median_radius>=1.5 (found 1.437)"
    assert str(verdict("median_radius>=1.5", [record(0, 1.4999999)])) == "median_radius>=1.5 (found 1.4999999)"
    assert str(verdict("forward_evaluations<1")) == "forward_evaluations<1 (found 4000)"


# The fields


def numbers(summary):
    """The names of the numeric fields of a JSON object, and of those of its `outcomes`."""
    found = {name for name, value in summary.items() if value is None or isinstance(value, (int, float))}
    return found | {f"outcomes.{name}" for name in summary.get("outcomes", {})}


def test_every_number_of_an_attack_can_be_required():
    fields = attack_fields()
    assert numbers(summarise(RECORDS, 1.0).to_json()) <= fields.values.keys()
    assert verdict("outcomes.not_found==1").met
    assert verdict("outcomes.abstained==0").met, "an outcome that never came is in no document"


def test_every_number_of_a_comparison_can_be_required():
    found = comparison_of([{r.index: r for r in RECORDS}, {r.index: r for r in RECORDS}]).to_json("complete")
    fields = compare_fields(found["attacks"], found)
    assert numbers(found["summary"]) - {"bootstrap"} <= fields.values.keys()
    for label, entry in found["attacks"].items():
        names = numbers(entry) - {"intervals"}
        assert "best_share" in names
        assert {f"{label}.{name}" for name in names} <= fields.values.keys()
        assert fields.value(f"{label}.median_radius") == entry["median_radius"]
        assert fields.value(f"{label}.best_share") == entry["best_share"] > 0
        assert fields.value(f"{label}.outcomes.not_found") == 1


def test_a_label_may_hold_dots():
    entries = {"caa": {"outcomes": {"failed": 1}}, "caa.outcomes": {"failed": 5}}
    found = {"attacks": {label: {**entry, "common": n} for n, (label, entry) in enumerate(entries.items())}}
    fields = compare_fields(found["attacks"], found)
    assert fields.value("caa.outcomes.common") == 1
    assert fields.value("caa.common") == 0
    assert fields.value("caa.outcomes.failed") == 1


def certified(records=CERTIFICATES, radius=None):
    return certify_fields(summarise_certificates(records, 100, 1.0, radius), records, radius)


def test_every_number_of_a_certification_can_be_required():
    assert numbers(summarise_certificates(CERTIFICATES, 100, 1.0).to_json()) <= certified().values.keys()
    assert certified().value("failed") == 1


@pytest.mark.parametrize(
    ("radius", "share"), [("0", 0.5), ("0.6", 0.5), ("0.61", 0.25), ("9e-1", 0.25), ("0.901", 0.0), (".25", 0.5)]
)
def test_certified_accuracy_at_any_radius(radius, share):
    """Of the images that did not fail: one is taken for another class, one abstained."""
    assert certified().value(f"certified_accuracy@{radius}") == share


@pytest.mark.parametrize("radius", ["", "-1", "nan", "inf", "1e999", "x"])
def test_what_is_no_radius_is_no_field(radius):
    with pytest.raises(UsageError, match="caa certify has no field"):
        certified().check(f"certified_accuracy@{radius}")


def test_the_median_radius_counts_wrong_and_abstained_images_as_nothing():
    assert certified().value("median_radius") == pytest.approx((0.0 + 0.6) / 2)
    assert certified(CERTIFICATES[:3]).value("median_radius") == 0.6
    assert certified([]).value("median_radius") is None


def test_where_one_radius_was_decided_on_there_are_no_others():
    fields = certified(radius=0.5)
    assert fields.value("certified_accuracy@0.50") == 0.5
    for name in ("certified_accuracy@0.4", "certified_accuracy@0.6", "median_radius", "average_certified_radius"):
        with pytest.raises(UsageError, match=r"--radius 0\.5 has no field") as caught:
            fields.check(name)
        assert "certified_accuracy@0.5" in (caught.value.hint or "")


@pytest.mark.parametrize("records", [[], CERTIFICATES[4:]])
def test_a_certification_of_nothing_meets_nothing(records):
    (found,) = judge([Requirement.parse("abstained==0")], certified(records))
    assert not found.met
    assert str(found) == "abstained==0 (found 0: no image was read)"


# The verdicts and the exit code


@pytest.mark.parametrize(
    ("before", "launched", "after"),
    [
        (DONE, False, REQUIREMENT_NOT_MET),
        (PARTIAL, False, REQUIREMENT_NOT_MET),
        (INTERRUPTED, False, INTERRUPTED),
        (ERROR, False, ERROR),
        (DONE, True, DONE),
    ],
)
def test_which_exit_code_wins(capsys, before, launched, after):
    gate = Gate(Display(quiet=True), [Requirement.parse("success_rate>=0.9")])
    gate.judge({"status": "complete"}, attack_fields(summarise(RECORDS, 1.0)))
    assert gate.exit_code(before, launched) == after
    stderr = capsys.readouterr().err
    assert unmet(stderr) == (["success_rate>=0.9 (found 0.6667)"] if after == REQUIREMENT_NOT_MET else [])
    assert ("by this shard alone; caa merge --require" in stderr) == launched


def test_annotations_are_for_github_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    path = write(tmp_path / "a.json", document(RECORDS))
    words = ("check", path, "--require", "success_rate>=0.9", "--json")
    assert "::error" not in caa(*words).output
    result = caa(*words, env={"GITHUB_ACTIONS": "true"})
    assert (
        f"::error title=caa::requirement not met: {path}: success_rate>=0.9 (found 0.6667)"
        in result.stderr.splitlines()
    )
    assert set(parse_strict(result.stdout)) == {"files", "requirements"}


def test_an_annotation_can_not_end_early():
    assert annotation("50% of a\nb\r::error::c") == "::error title=caa::50%25 of a%0A  b\\r::error::c"


def test_an_interrupted_run_is_not_judged():
    gate = Gate(Display(), [Requirement.parse("success_rate>=0.9")])
    document = {"status": "interrupted"}
    assert gate.judge(document, attack_fields(summarise(RECORDS, 1.0))) == document
    assert gate.verdicts == []
