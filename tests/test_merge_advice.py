"""What `caa merge` and the runs beside it say where something is unfinished, failed or in the way."""

from __future__ import annotations

from comparing import write
from merging import merge, shard, shards
from support import CHEAP, assert_clean_error, caa


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
