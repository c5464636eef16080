"""A journal is checked line by line before anything is done with it, and what is wrong with it is said."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from support import CHEAP, assert_clean_error, caa

from caa_cli.config.schema import SchemaError
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.certificates import CertifyRecord
from caa_cli.results.records import AttackRecord
from caa_cli.results.store.journal import Journal, header_of, read_journal

SETTINGS = {"attack": "caa", "sigma": 0.5, "samples": 100, "iterations": 8, "save_adversarial": None}
HEADER = {
    "command": "attack",
    "config": SETTINGS,
    "checkpoint": {"sha256": "abc"},
    "images": {"count": 100, "files_sha256": None},
    "shard": {"index": 0, "count": 1},
}


def attacked(index: int, radius: float = 1.5, **fields) -> dict:
    record = AttackRecord(index, 3, "attacked", certified_radius=1.0, radius=radius, adversarial_class=5)
    return {**record.to_json(), **fields}


def written(path, *lines, **header):
    entries = [{"schema_version": 1, **HEADER, **header}, *lines]
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in entries))
    return path


def fails(path, problem):
    before = path.read_bytes()
    journal = Journal(path)
    with pytest.raises(CaaError) as refused:
        journal.resume(HEADER, [])
    journal.close()
    assert f"{path} is no record of a run, or it is damaged ({problem}" in refused.value.problem
    assert refused.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"index": None}, "line 3: index is null, not a whole number at least 0)"),
        ({"index": True}, "line 3: index is true, not a whole number at least 0)"),
        ({"index": -1}, "line 3: image -1: index is -1, not"),
        ({"index": 10**6}, "line 3: image 1000000: index is 1000000, and the data set has 100 images)"),
        ({"index": 10**400}, "line 3: image 1000"),
        ({"outcome": 5}, "line 3: image 1: outcome is 5, not a text)"),
        ({"outcome": "certified"}, "line 3: image 1: outcome is 'certified', not one of abstained, attacked"),
        ({"radius": -1}, "line 3: image 1: radius is -1, not a number at least 0)"),
        ({"radius": "x"}, 'line 3: image 1: radius is "x", not a number'),
        ({"radius": float("nan")}, "line 3: NaN is not allowed)"),
        ({"radius": None}, "line 3: image 1: radius is missing, and the outcome is attacked)"),
        ({"adversarial_class": None}, "line 3: image 1: adversarial_class is missing, and the outcome is attacked)"),
        ({"certified_radius": None}, "line 3: image 1: certified_radius is missing"),
        ({"seconds": []}, "line 3: image 1: seconds is a list, not a number at least 0 and at most 1e+12)"),
        ({"forward_evaluations": "7"}, 'line 3: image 1: forward_evaluations is "7", not a whole number'),
        ({"error": {}}, "line 3: image 1: error is an object, not a text)"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, change, problem):
    fails(written(tmp_path / "j", attacked(0), {**attacked(1), **change}, attacked(2)), problem)


@pytest.mark.parametrize("line", ["\n", "5\n", "[]\n", '"x"\n', "{\n", "[" * 100_000 + "\n", '{"index": 1}\n'])
def test_what_is_no_line_of_a_journal_is_named(tmp_path, line):
    fails(written(tmp_path / "j", attacked(0), line, attacked(2)), "line 3: ")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ({"checkpoint": None}, "line 1: checkpoint is null, not an object)"),
        ({"checkpoint": {"sha256": 5}}, "line 1: checkpoint.sha256 is 5, not a text)"),
        ({"shard": []}, "line 1: shard is a list, not an object)"),
        ({"shard": {"index": 1, "count": 1}}, "line 1: there is no shard 1 of 1)"),
        ({"surrogate_model": "x"}, 'line 1: surrogate_model is "x", not an object)'),
        ({"images": {"count": -1}}, "line 1: images.count is -1, not a whole number at least 0"),
        ({"config": []}, "line 1: config is a list, not an object)"),
        ({"config": {**SETTINGS, "samples": [1]}}, "line 1: config.samples is a list, not a whole number"),
        ({"config": {**SETTINGS, "save_adversarial": 5}}, "line 1: config.save_adversarial is 5, not the name of"),
        ({"command": "compare"}, 'line 1: command is "compare", not one of attack, certify)'),
    ],
)
def test_a_damaged_header_is_named(tmp_path, header, problem):
    path = written(tmp_path / "j", attacked(0), **header)
    fails(path, problem)
    assert header_of(path) == {}


def test_one_image_with_two_results_is_refused(tmp_path):
    fails(written(tmp_path / "j", attacked(0), attacked(1), attacked(0, 2.5)), "line 4: image 0 is on line 2 already")


def test_an_image_that_was_attacked_again_is_no_damage(tmp_path):
    """For its picture: as journals say it, and, with the same result but for the time, as they did not always."""
    path = written(tmp_path / "j", attacked(0), attacked(1), attacked(0, seconds=9.0))
    journal = Journal(path)
    assert [record.index for record in journal.resume(HEADER, [])] == [0, 1]
    again = AttackRecord.from_json(attacked(1, 1.25))
    journal.append(again)
    journal.append(AttackRecord.from_json(attacked(2)))
    journal.close()
    assert [json.loads(line).get("again") for line in path.read_text().splitlines()[-2:]] == [True, None]
    assert Journal(path).resume(HEADER, [])[1] == again


def test_an_image_of_a_result_that_was_copied_and_attacked_again_is_no_damage(tmp_path):
    """A finished run that is to keep its images goes on from its result; on another device they differ."""
    journal = Journal(tmp_path / "j")
    journal.start(HEADER)
    journal.append(AttackRecord.from_json(attacked(0)), AttackRecord.from_json(attacked(1)))
    again = AttackRecord.from_json(attacked(0, 1.25))
    journal.append(again)
    journal.close()
    assert Journal(tmp_path / "j").resume(HEADER, [])[0] == again


def test_a_certificate_needs_its_prediction_and_says_whether_it_is_right(tmp_path):
    settings = {"samples": 1000}
    good = CertifyRecord(0, 3, "certified", prediction=3, radius=0.5, correct=True, votes_top=900).to_json()
    for change, problem in [
        ({"correct": None}, "line 2: image 0: correct is null, not true or false)"),
        ({"radius": None}, "line 2: image 0: radius is missing, and the outcome is certified)"),
        ({"votes_top": 1.5}, "line 2: image 0: votes_top is 1.5, not a whole number"),
        ({"outcome": "attacked"}, "line 2: image 0: outcome is 'attacked', not one of"),
    ]:
        fails(written(tmp_path / "j", {**good, **change}, command="certify", config=settings), problem)
    header, records, _ = read_journal(written(tmp_path / "j", good, command="certify", config=settings))
    assert header["config"] == settings
    assert records[0] == CertifyRecord.from_json(good)


@pytest.mark.parametrize(
    ("theirs", "ours", "fits"), [((0, 2), (1, 2), False), ((1, 2), (1, 2), True), ((1, 2), (0, 1), True)]
)
def test_a_shard_goes_on_with_its_own_journal_alone(tmp_path, theirs, ours, fits):
    """The whole run takes what a shard has of it."""
    there, here = ({"shard": {"index": index, "count": count}} for index, count in (theirs, ours))
    journal = Journal(written(tmp_path / "j", attacked(0), **there))
    with nullcontext() if fits else pytest.raises(UsageError, match=r"shard \(0/2 there, 1/2 here\)"):
        assert len(journal.resume({**HEADER, **here}, [])) == 1
    journal.close()


def test_a_journal_of_before_the_data_were_recorded_is_gone_on_with(tmp_path):
    older = {name: value for name, value in HEADER.items() if name != "images"}
    lines = [{"schema_version": 1, **older}, attacked(0)]
    (tmp_path / "j").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(Journal(tmp_path / "j").resume(HEADER, [])) == 1


def test_what_another_version_may_have_added_is_passed_over(tmp_path):
    path = written(tmp_path / "j", attacked(0, of_tomorrow={"a": [1, None]}), of_tomorrow=[[]])
    assert len(Journal(path).resume(HEADER, [])) == 1


@pytest.mark.parametrize("command", ["attack", "certify"])
def test_a_damaged_journal_is_refused_before_anything_is_loaded(tmp_path, command):
    """The checkpoint is not there, which would be said first otherwise."""
    path = written(tmp_path / "a.json.jsonl", attacked(0, radius=-1.0))
    before = path.read_bytes()
    words = [command, "--checkpoint", tmp_path / "none.safetensors", "--resume", "--output", tmp_path / "a.json"]
    assert_clean_error(caa(*words), 1, "a.json.jsonl is no record of a run, or it is damaged (line 2", "--output")
    assert_clean_error(caa("merge", tmp_path / "a.json", "--partial", "--output", tmp_path / "b.json"), 1, "(line 2")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_damaged_records_of_other_runs_are_nobodys(tmp_path):
    """A shard looks whether another writes to the same place; what is no header says nothing of it."""
    written(tmp_path / "z.jsonl", shard=[], config={**SETTINGS, "save_adversarial": 5})
    words = ["--limit", "1", "--shard", "0/2", "--output", tmp_path / "a.json", "--quiet"]
    result = caa("attack", *CHEAP, *words, "--save-adversarial", tmp_path / "a.safetensors")
    assert result.exit_code == 0, result.output


def test_a_record_of_before_the_samples_of_a_try_were_recorded():
    older = {name: value for name, value in attacked(1).items() if name != "last_try_samples"}
    assert AttackRecord.from_json(older).last_try_samples is None
    assert AttackRecord.from_json({**older, "last_try_samples": 1000}).last_try_samples == 1000
    with pytest.raises(SchemaError, match="last_try_samples"):
        AttackRecord.from_json({**older, "last_try_samples": -1})
