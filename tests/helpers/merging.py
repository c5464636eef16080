"""Shards of one run without a run: what the tests of `caa merge` are made of."""

from __future__ import annotations

import json

from comparing import document, record, write
from support import caa, read_strict

from caa_cli.runtime.sharding import Shard

IMAGES = 7


def shard(index: int, count: int = 3, images: int = IMAGES, **settings):
    records = [record(i, 1.5 + i) for i in range(images)[index::count]]
    found = document(records, shard=Shard(index, count), limit=images, **settings)
    found["resume"] = f"caa attack --checkpoint demo --shard {index}/{count} --resume"
    return found


def shards(folder, count: int = 3, **settings):
    return [write(folder / f"{k}.json", shard(k, count, **settings)) for k in range(count)]


def killed(folder, name: str, document, done: int):
    """The record that a shard leaves which was killed, with a line cut off, and one that was done twice."""
    header = {key: value for key, value in document.items() if key not in ("examples", "summary", "status")}
    failed = {**document["examples"][0], "outcome": "failed", "radius": None}
    lines = [header, failed, *document["examples"][:done]]
    text = "\n".join(map(json.dumps, lines)) + '\n{"index": 9'
    (folder / f"{name}.jsonl").write_text(text)
    return folder / name


def merge(folder, *words):
    output = folder / "all.json"
    result = caa("merge", *words, "--output", output)
    return result, read_strict(output) if output.exists() else None
