"""The files that a result of `caa compare` compares, found where they are now."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from caa_cli.config.schema import SchemaError, check
from caa_cli.results.documents import Compared


def compared_files(path: Path, document: Mapping[str, Any]) -> list[Path]:
    """The files that a result of `caa compare` at `path` compares, as they can be named here; empty for another one.

    It names them from the folder where its command was typed, and they may have been moved together with it. So each
    is looked for beside the result (unless two have one name), from its folder, and from the current one.
    """
    if document.get("command") != "compare":
        return []
    try:
        check(document, Compared)
    except SchemaError:
        return []
    entries = [*document["attacks"].values(), *document.get("models", {}).values()]
    named = dict.fromkeys(Path(file) for entry in entries for file in entry.get("files", []))
    names = Counter(file.name for file in named)
    found = []
    for file in named:
        places = [path.with_name(file.name)] if names[file.name] == 1 else []
        places += [Path(os.path.normpath(path.parent / file)), file]
        found.append(next((place for place in places if place.exists()), file))
    return found


def in_a_command(files: Sequence[Path]) -> list[str]:
    """The files as words of a command; a shard's stands for those of all shards, whose names differ in one mark."""
    return list(dict.fromkeys(re.sub(r"\.shard-\d+-of-(\d+)", r".shard-*-of-\1", str(file)) for file in files))
