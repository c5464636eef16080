"""The selection of images of a split, by their global indices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from caa_cli.config.choices import DEMO_LIMIT
from caa_cli.config.datasets import DEMO
from caa_cli.errors import UsageError


def select(size: int, skip: int, every: int, limit: int | None, file: Path | None) -> Sequence[int]:
    """Out of a split of `size`: those that `file` lists, else every `every`-th from `skip` on; the first `limit`."""
    chosen = range(min(skip, size), size, every) if file is None else read_indices(file, size)
    return chosen[:limit]


def default_limit(limit: int | None, dataset: str | None, file: Path | None) -> int | None:
    """The limit, with a default for the demo, which is for a first impression."""
    return DEMO_LIMIT if limit is None and dataset == DEMO and file is None else limit


def read_indices(path: Path, size: int) -> tuple[int, ...]:
    """A text file with an index a line, where # begins a comment, or a JSON list; in the order of the file.

    Raises UsageError, with the line, for what is no index of a split of `size`, and for one that comes twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"--indices {path} can't be read ({why})", "name a file with an index a line") from error
    seen: dict[int, str] = {}
    for where, entry in _entries(path, text):
        if isinstance(entry, bool) or not isinstance(entry, int):
            raise UsageError(f"{path}, {where}: {entry!r} is no whole number", "write one index a line, from 0 on")
        if not 0 <= entry < size:
            raise UsageError(
                f"{path}, {where}: there is no image {entry}", f"the split has the images 0 to {size - 1}"
            )
        if entry in seen:
            raise UsageError(f"{path}, {where}: {entry} is in {seen[entry]} already", "delete one of them")
        seen[entry] = where
    if not seen:
        raise UsageError(f"--indices {path} lists no image", "write one index a line, from 0 on")
    return tuple(seen)


def _entries(path: Path, text: str) -> list[tuple[str, object]]:
    """(position, value) for each entry; a text that is no whole number stays a text."""
    if text.lstrip().startswith("["):
        try:
            return [(f"entry {position}", entry) for position, entry in enumerate(json.loads(text), 1)]
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--indices {path} is no JSON list ({error})", "write one index a line") from error
    lines = ((number, line.split("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(f"line {number}", _number(word)) for number, word in lines if word]


def _number(word: str) -> object:
    """Convert digits to an int; int() alone would accept 1_000 and ³ too."""
    return int(word) if word.isascii() and word.removeprefix("-").isdigit() and len(word) < 20 else word
