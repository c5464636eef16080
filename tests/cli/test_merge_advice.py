"""What `caa merge` and the runs beside it say where something is unfinished, failed or in the way."""

from __future__ import annotations

import numpy as np
import pytest
from comparing import document, record, write
from merging import IMAGES, killed, merge, shard, shards
from support import CHEAP, assert_clean_error, caa, parse_strict

from caa_cli.config.named_attacks import label_of
from caa_cli.results.shards.merged_result import merge as merge_parts
from caa_cli.results.shards.merged_result import merged_images
from caa_cli.results.shards.result_file import read_result_file
from caa_cli.results.store.images import StoredImages, save_images
from caa_cli.results.store.journal import Journal


def partial(folder):
    """A merged result whose shard 1 is unfinished."""
    files = shards(folder)
    short = {**shard(1), "status": "interrupted"}
    short["examples"] = short["examples"][:1]
    write(files[1], short)
    merge(folder, *files, "--partial")
    return folder / "all.json"


def test_a_merged_result_is_gone_on_with_in_its_shards(tmp_path):
    place = partial(tmp_path)
    before = place.read_bytes()
    command = "finish its shards with: caa attack --checkpoint demo --shard 1/3 --resume"
    for resume in ([], ["--resume"], ["--resume", "--overwrite"]):
        refused = caa("attack", *CHEAP, "--limit", "7", "--output", place, *resume)
        assert_clean_error(refused, 2, f"{place} was merged from shards and is partial", command)
    assert place.read_bytes() == before
    assert_clean_error(caa("merge", place, "--output", tmp_path / "b.json"), 2, "is unfinished", command)


def test_a_merged_result_without_a_shard_says_that_it_is_missing(tmp_path):
    files = shards(tmp_path)
    merge(tmp_path, *files[:2], "--partial")
    refused = caa("merge", tmp_path / "all.json", "--output", tmp_path / "b.json")
    assert_clean_error(refused, 2, "is unfinished", f"run the shards that are missing beside {files[0]}, {files[1]}")


def test_images_are_read_one_at_a_time_when_they_are_written(tmp_path, monkeypatch):
    picture, reads = np.zeros((1, 2, 2), np.float32), []
    files = []
    for k in range(3):
        found, images = shard(k), tmp_path / f"{k}.safetensors"
        held = [record(example["index"], example["radius"], adversarial_class=1) for example in found["examples"]]
        save_images(images, {r.index: picture + r.index for r in held}, held, "0")
        found["config"]["save_adversarial"] = str(images)
        files.append(write(tmp_path / f"{k}.json", found))
    read = StoredImages.__getitem__
    monkeypatch.setattr(StoredImages, "__getitem__", lambda self, index: reads.append(index) or read(self, index))
    merged = merged_images(merge_parts([read_result_file(file) for file in files]))
    assert (len(merged), 3 in merged, reads) == (7, True, [])
    assert merged[3].tolist() == (picture + 3).tolist()


def test_a_partial_merged_result_is_compared_on_what_it_has(tmp_path):
    place = partial(tmp_path)
    other = write(tmp_path / "other.json", document([record(i, 2.0) for i in range(IMAGES)], "pgd", limit=IMAGES))
    result = caa("compare", place, other, "--json")
    assert result.exit_code == 3, result.output
    assert parse_strict(result.stdout)["summary"]["examples"] == IMAGES - 1


def test_a_failed_image_is_said_even_when_quiet(tmp_path):
    files = shards(tmp_path)
    failed = shard(2)
    failed["examples"][0] = record(2, None, outcome="failed", certified=None, error="no image").to_json()
    write(files[2], {**failed, "status": "partial"})
    result, _ = merge(tmp_path, *files, "--quiet")
    assert result.exit_code == 3
    assert f"1 of the images failed; the first is 2 of {files[2]}: no image" in result.stderr
    assert "finish it with: caa attack --checkpoint demo --shard 2/3 --resume" in result.stderr


@pytest.mark.parametrize("text", ["", '{"schema_version": 1, "conf'])
def test_a_shard_whose_record_has_no_whole_line_is_missing(tmp_path, text):
    files = [write(tmp_path / f"a.shard-{k}-of-3.json", shard(k)) for k in (0, 2)]
    place = tmp_path / "a.shard-1-of-3.json"
    (tmp_path / f"{place.name}.jsonl").write_text(text)
    for named in (files, [*files, place]):
        result, found = merge(tmp_path, *named, "--partial")
        assert result.exit_code == 3, result.output
        assert found["gaps"] == ["shard 1 of 3 is missing"]
    assert_clean_error(merge(tmp_path, place, "--partial")[0], 2, "nothing to merge", "--resume")
    for named in (files, [*files, place]):
        assert_clean_error(merge(tmp_path, *named)[0], 2, f"{place} is not there", "--partial")


def test_records_and_results_of_unfinished_runs_are_not_overwritten(tmp_path):
    files = shards(tmp_path)
    record_of = tmp_path / "1.json.jsonl"
    record_of.write_text("{}\n")
    assert_clean_error(
        caa("merge", *files, "--output", record_of), 2, "is the same file as a shard to read", "another name"
    )
    place = killed(tmp_path, "all.json", shard(1), done=1)
    assert_clean_error(merge(tmp_path, *files)[0], 2, f"beside --output {place} is the record", "--resume")


def test_the_output_of_a_run_that_has_only_begun_is_not_taken(tmp_path):
    journal = Journal(tmp_path / "all.json.jsonl")
    journal.reserve()
    assert_clean_error(merge(tmp_path, *shards(tmp_path))[0], 1, "another run is writing to", "wait")
    journal.close()
    assert merge(tmp_path, *shards(tmp_path))[0].exit_code == 0


def test_a_dry_run_has_its_document_on_stdout(tmp_path):
    files = shards(tmp_path)
    result = caa("merge", *files, "--output", tmp_path / "all.json", "--dry-run", "--json")
    assert len(parse_strict(result.stdout)["examples"]) == IMAGES
    assert not (tmp_path / "all.json").exists()


def test_files_from_before_a_setting_fit_those_that_have_it(tmp_path):
    """Such a run drew a fixed number of samples, and searched at the true sigma."""
    files = shards(tmp_path, sample_schedule="fixed", attack_sigma=0.5)
    old = shard(1)
    for name in ("sample_schedule", "attack_sigma"):
        old["config"].pop(name)
    write(files[1], old)
    result, _ = merge(tmp_path, *files)
    assert result.exit_code == 0, result.output
    part = read_result_file(files[1])
    assert part.setting("sample_schedule") == "fixed"
    write(files[0], shard(0, sample_schedule="doubling", attack_sigma=0.5))
    assert_clean_error(merge(tmp_path, *files)[0], 2, "sample_schedule (doubling and fixed)")


def test_what_to_name_instead_of_a_comparison_of_one_shard(tmp_path):
    found = {**shard(0), "command": "compare", "attacks": {}}
    for attack in ("caa", "pgd"):
        found["attacks"][attack] = {"files": [f"c.{attack}.shard-0-of-2.json"]}
    place = write(tmp_path / "c.json", found)
    hint = "to merge, one attack's): c.caa.shard-*-of-2.json c.pgd.shard-*-of-2.json"
    for refused in (merge(tmp_path, place)[0], caa("compare", place)):
        assert_clean_error(refused, 2, "is a result of caa compare", hint)
    place.write_text(place.read_text().replace('"attacks": {', '"attacks": {}, "others": {'))
    assert_clean_error(caa("compare", place), 2, "is a result of caa compare", "name the files of caa attack")


def test_labels_of_settings_that_differ_do_not_collide():
    labels = [label_of("caa", {"overshoot": value}) for value in (1.2, 1.2000001, 1.2000002)]
    assert labels == ["caa:overshoot=1.2", "caa:overshoot=1.2000001", "caa:overshoot=1.2000002"]
