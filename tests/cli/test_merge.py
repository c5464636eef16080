"""`caa merge`: shards joined to the result of one process, and what it refuses to join."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparing import record, write
from merging import IMAGES, killed, merge, shard, shards
from safetensors.numpy import load_file
from support import CHEAP, assert_clean_error, attack, caa, parse_strict, read_strict, timeless

CERTIFY = "certify --checkpoint demo --samples 200 --limit 5 --chunk-size 256 --device cpu --quiet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run, and the same in two shards, with their images."""
    folder = tmp_path_factory.mktemp("whole")
    words = ["--limit", "5", "--quiet", "--save-adversarial"]
    alone = attack(folder / "alone.json", *words, folder / "alone.safetensors")
    for k in range(2):
        attack(folder / f"{k}.json", *words, folder / f"{k}.safetensors", "--shard", f"{k}/2")
    return folder, alone


def comparable(found):
    """A result without its times and places."""
    config = {
        n: v for n, v in found["config"].items() if n not in ("output", "save_adversarial", "tsv", "resume", "shard")
    }
    summary = {name: value for name, value in found["summary"].items() if "seconds" not in name}
    same = {
        n: found[n] for n in ("schema_version", "command", "status", "fingerprint", "checkpoint", "images", "shard")
    }
    return {
        **same,
        "environment": found["environment"],
        "config": config,
        "summary": summary,
        "examples": timeless(found),
    }


def test_shards_merged_are_the_run_in_one_process(whole, tmp_path):
    folder, alone = whole
    files = [folder / "1.json", folder / "0.json"]
    result, found = merge(tmp_path, *files, "--save-adversarial", tmp_path / "all.safetensors")
    assert result.exit_code == 0, result.output
    assert comparable(found) == comparable(alone)
    assert found["config"]["shard"] == alone["config"]["shard"]
    assert found["summary"]["seconds"] == pytest.approx(sum(read_strict(f)["summary"]["seconds"] for f in files))
    assert [part["file"] for part in found["merged"]] == [str(file) for file in reversed(files)]
    assert found["gaps"] == []
    here, there = load_file(tmp_path / "all.safetensors"), load_file(folder / "alone.safetensors")
    assert len(there["images"]) > 0
    assert {name: value.tobytes() for name, value in here.items()} == {n: v.tobytes() for n, v in there.items()}
    # The merged result is a result like any other.
    compared = caa("compare", tmp_path / "all.json", "--format", "json")
    assert compared.exit_code == 0, compared.output
    again = caa("attack", *CHEAP, "--limit", "5", "--output", tmp_path / "all.json", "--resume")
    assert again.exit_code == 0, again.output
    assert "finished already" in again.stderr
    assert read_strict(tmp_path / "all.json") == found


def test_certificates_are_merged_too(tmp_path):
    words = CERTIFY.split()
    for name, more in (("alone", []), ("0", ["--shard", "0/2"]), ("1", ["--shard", "1/2"])):
        assert (
            caa(*words, *more, "--output", tmp_path / f"{name}.json", "--tsv", tmp_path / f"{name}.tsv").exit_code
            == 0
        )
    result, found = merge(tmp_path, tmp_path / "0.json", tmp_path / "1.json", "--tsv", tmp_path / "all.tsv")
    assert result.exit_code == 0, result.output
    alone = read_strict(tmp_path / "alone.json")
    assert comparable(found) == comparable(alone)
    logs = [
        [line.rsplit("\t", 1)[0] for line in (tmp_path / n).read_text().splitlines()]
        for n in ("all.tsv", "alone.tsv")
    ]
    assert logs[0] == logs[1]


def test_in_any_order_and_as_json(tmp_path):
    files = shards(tmp_path)
    result = caa("merge", *reversed(files), "--output", tmp_path / "all.json", "--json")
    assert parse_strict(result.stdout) == read_strict(tmp_path / "all.json")
    assert [example["index"] for example in parse_strict(result.stdout)["examples"]] == list(range(IMAGES))


def test_a_folder_is_answered_with_the_files_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for folder, files in ((".", "*.json"), ("runs", "runs/*.json")):
        hint = f"caa merge {files} --output all.json"
        assert_clean_error(caa("merge", folder, "--output", "all.json"), 2, f"{folder} is a folder", hint)


def test_a_dry_run_only_checks(tmp_path):
    files = shards(tmp_path)
    result, found = merge(tmp_path, *files, "--dry-run")
    assert (result.exit_code, found) == (0, None)
    assert_clean_error(merge(tmp_path, *files[:2], "--dry-run")[0], 2, "shard 2 of 3 is missing")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"alpha": 0.01}, "different settings: alpha (0.005 and 0.01)"),
        ({"seed": 3, "samples": 9}, "different settings: seed (0 and 3), samples (1500 and 9)"),
        ({"overshoot": 2.0}, "different settings: overshoot (1.05 and 2.0)"),
        ({"attack": "pgd", "samples": 9}, "different settings: attack (caa and pgd)"),
        ({"skip": 3}, "different selections of the images: skip (0 and 3)"),
        ({"indices_file": "x.txt"}, "different selections of the images: indices_file (not set and x.txt)"),
    ],
)
def test_shards_of_different_runs_are_refused(tmp_path, change, problem):
    files = shards(tmp_path)
    other = shard(1)
    other["config"] = {**other["config"], **change}
    if "overshoot" in change:
        first = shard(0)
        first["config"].pop("overshoot")
        write(files[0], first)
    write(files[1], other)
    result, found = merge(tmp_path, *files)
    assert_clean_error(result, 2, problem, "caa compare")
    assert ("samples" in result.stderr) == ("samples" in problem), "of another attack"
    assert found is None


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("checkpoint", {"sha256": "b" * 64}, "are of different checkpoints (sha256 aaaaaaaaaaaa and bbbbbbbbbbbb)"),
        ("images", {"count": 99, "files_sha256": None}, "are over different data: 100 images and 99 images"),
        ("surrogate_model", {"sha256": "c" * 64}, "took their gradients from different checkpoints"),
        ("shard", {"index": 1, "count": 4}, "are of different numbers of shards: 3 and 4"),
        ("shard", {"index": 4, "count": 3}, "there is no shard 4 of 3"),
        ("command", "compare", "is a result of caa compare, not of caa attack or caa certify"),
        ("command", "certify", "is damaged"),
        ("examples", [1], "is damaged"),
        ("schema_version", 2, "was written in schema 2, this is 1"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, name, value, problem):
    files = shards(tmp_path)
    write(files[1], {**shard(1), name: value})
    result, found = merge(tmp_path, *files)
    assert result.exit_code in (1, 2)
    assert_clean_error(result, result.exit_code, problem)
    assert str(files[1]) in result.stderr
    assert found is None


def test_gaps_and_overlaps_are_refused(tmp_path):
    files = shards(tmp_path)
    assert_clean_error(merge(tmp_path, files[1])[0], 2, "shard 0, 2 of 3 is missing beside", "all shards")
    assert_clean_error(merge(tmp_path, *files, files[0])[0], 2, "overlap: both hold image 0", "once")
    more = shard(1)
    more["examples"].append(record(0, 2.0).to_json())
    write(files[1], more)
    assert_clean_error(merge(tmp_path, *files)[0], 2, "overlap: both hold image 0", "once")


@pytest.mark.parametrize("status", ["interrupted", "complete"])
def test_an_unfinished_shard_is_refused_with_the_command_that_finishes_it(tmp_path, status):
    files = shards(tmp_path)
    short = {**shard(1), "status": status}
    short["examples"] = short["examples"][:1]
    write(files[1], short)
    result, _ = merge(tmp_path, *files)
    assert_clean_error(
        result, 2, f"{files[1]} is unfinished: 1 of its images are missing (4)", "--shard 1/3 --resume"
    )

    result, found = merge(tmp_path, *files, "--partial")
    assert result.exit_code == 3
    assert "warning:" in result.stderr
    assert found["status"] == "partial"
    assert [example["index"] for example in found["examples"]] == [0, 1, 2, 3, 5, 6]
    assert found["gaps"] == [f"{files[1]}: 1 of its images are missing (4)"]
    # What was joined so can't pass for a whole.
    assert_clean_error(caa("merge", tmp_path / "all.json", "--output", tmp_path / "b.json"), 2, "is unfinished")


def test_an_interrupted_shard_of_listed_images_is_unfinished(tmp_path):
    """How many of them it lacks is not known here."""
    files = shards(tmp_path, indices_file="i.txt")
    write(files[1], {**shard(1, indices_file="i.txt"), "status": "interrupted"})
    assert_clean_error(merge(tmp_path, *files)[0], 2, "1.json is unfinished: it was interrupted", "--partial")


def test_a_missing_shard_is_left_out_if_it_may_be(tmp_path):
    result, found = merge(tmp_path, *shards(tmp_path)[:2], "--partial")
    assert result.exit_code == 3
    assert found["gaps"] == ["shard 2 of 3 is missing"]


def test_a_shard_without_images_need_not_be_there(tmp_path):
    files = shards(tmp_path, count=IMAGES + 2)
    result, found = merge(tmp_path, *files[:IMAGES])
    assert result.exit_code == 0, result.output
    assert len(found["examples"]) == IMAGES


def test_a_failed_image_makes_it_partial(tmp_path):
    files = shards(tmp_path)
    failed = shard(2)
    failed["examples"][0] = record(2, None, outcome="failed", certified=None).to_json()
    write(files[2], {**failed, "status": "partial"})
    result, found = merge(tmp_path, *files)
    assert result.exit_code == 3
    assert (found["status"], found["gaps"]) == ("partial", [])


def test_a_shard_that_was_killed_is_named_with_the_command_that_goes_on(tmp_path):
    files = [write(tmp_path / f"a.shard-{k}-of-3.json", shard(k)) for k in (0, 2)]
    place = killed(tmp_path, "a.shard-1-of-3.json", shard(1), done=1)
    for named in ([*files, place], files):  # a pattern does not find what is not there
        result, _ = merge(tmp_path, *named)
        assert_clean_error(result, 2, f"{place} is not there: its run ended before it could", "--shard 1/3 --resume")
        assert "1 image finished" in result.stderr
        result, found = merge(tmp_path, *named, "--partial")
        assert result.exit_code == 3
        assert [example["index"] for example in found["examples"]] == [0, 1, 2, 3, 5, 6]
        (tmp_path / "all.json").unlink()
    # A record of another run, from before.
    killed(tmp_path, "a.shard-1-of-3.json", shard(1, seed=5), done=1)
    assert_clean_error(merge(tmp_path, *files, "--partial")[0], 2, "seed (0 and 5)")
    (tmp_path / "a.shard-1-of-3.json.jsonl").write_text("hello\n")
    assert_clean_error(merge(tmp_path, *files)[0], 1, "is no record of a run")


def test_a_shard_that_has_a_result_is_merged_only_where_it_is_named(tmp_path):
    files = [write(tmp_path / f"a.shard-{k}-of-3.json", shard(k)) for k in range(3)]
    killed(tmp_path, files[1].name, shard(1), done=1)
    _, found = merge(tmp_path, files[0], files[2], "--partial")
    assert found["gaps"] == ["shard 1 of 3 is missing"]


def test_one_record_alone_can_be_made_a_partial_result(tmp_path):
    place = killed(tmp_path, "1.json", shard(1), done=2)
    result, found = merge(tmp_path, place, "--partial")
    assert result.exit_code == 3
    assert [example["index"] for example in found["examples"]] == [1, 4]


def test_of_an_interrupted_run_that_was_then_killed_all_that_is_finished_counts(tmp_path):
    files = shards(tmp_path)
    write(files[1], {**shard(1), "status": "interrupted", "examples": []})
    killed(tmp_path, "1.json", shard(1), done=2)
    _, found = merge(tmp_path, *files, "--partial")
    assert len(found["examples"]) == IMAGES


def test_wrong_usage(tmp_path):
    files = shards(tmp_path)
    assert_clean_error(caa("merge", *files), 2, "--output", "caa merge a.json b.json --output all.json")
    assert_clean_error(caa("merge", "--output", tmp_path / "x.json"), 2, "needs the files of all shards")
    before = files[1].read_bytes()
    assert_clean_error(caa("merge", *files, "--output", files[1]), 2, "is the same file as a shard", "another name")
    assert files[1].read_bytes() == before
    assert_clean_error(merge(tmp_path, tmp_path / "none.json")[0], 1, "can't be read", "caa attack or caa certify")
    assert_clean_error(merge(tmp_path, *files, "--tsv", tmp_path / "x.tsv")[0], 2, "--tsv is of caa certify")


def test_images_that_were_not_saved_are_not_left_out_in_silence(whole, tmp_path):
    files = shards(tmp_path)
    result, found = merge(tmp_path, *files, "--save-adversarial", tmp_path / "a.safetensors")
    assert_clean_error(result, 1, "the images of 3 attacked examples", "--save-adversarial")
    assert found is None


def test_the_attack_that_wrote_a_shard_says_how_to_go_on(whole):
    folder, _ = whole
    assert " --resume" in read_strict(folder / "0.json")["resume"]
