"""What `caa merge` and the runs beside it say where something is unfinished, failed or in the way."""

from __future__ import annotations

import numpy as np
from comparing import record, write
from merging import merge, shard, shards
from support import CHEAP, assert_clean_error, caa

from caa_cli.results.images import StoredImages, save_images
from caa_cli.results.merging import merge as merge_parts
from caa_cli.results.merging import merged_images
from caa_cli.results.parts import read_part


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
    refused = caa("attack", *CHEAP, "--limit", "7", "--output", place, "--resume")
    command = "finish its shards with: caa attack --checkpoint demo --shard 1/3 --resume"
    assert_clean_error(refused, 2, f"{place} was merged from shards", command)
    assert place.read_bytes() == before
    assert_clean_error(caa("merge", place, "--output", tmp_path / "b.json"), 2, "is unfinished", command)


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
    merged = merged_images(merge_parts([read_part(file) for file in files]))
    assert (len(merged), 3 in merged, reads) == (7, True, [])
    assert merged[3].tolist() == (picture + 3).tolist()
