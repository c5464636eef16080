"""The selection of images of a split, by their global indices."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from caa_cli.config.choices import DEMO_LIMIT
from caa_cli.config.datasets import DEMO
from caa_cli.errors import UsageError

# A list on the command line: digits, commas, ranges.
_LIST = r"[0-9][0-9, -]*"
_FORMS = "for instance --indices 3,17,20-25"
_MOST_LISTED = 1_000_000


def file_or_list(text: str | Path) -> tuple[Path | None, str | None]:
    """What --indices names: (the file, None), or (None, the list), such as `3,17,20-25`; a file that exists goes
    first."""
    if not str(text).strip() or text == Path():
        raise UsageError("--indices names no image", _FORMS)
    is_list = re.fullmatch(_LIST, str(text)) is not None and not os.path.exists(text)  # noqa: PTH110
    return (None, str(text)) if is_list else (Path(text), None)


def select(
    size: int, skip: int, every: int, limit: int | None, file: Path | None, listed: str | None = None
) -> Sequence[int]:
    """Out of a split of `size`: those that `file` or `listed` lists, else every `every`-th from `skip` on; the first
    `limit`."""
    if file is not None:
        return read_indices(file, size)[:limit]
    if listed is not None:
        return parse_indices(listed, size)[:limit]
    return range(min(skip, size), size, every)[:limit]


def default_limit(limit: int | None, dataset: str | None, listed: bool) -> int | None:
    """The limit, with a default for the demo, which is for a first impression. listed: the images are named."""
    return DEMO_LIMIT if limit is None and dataset == DEMO and not listed else limit


def parse_indices(text: str, size: int) -> tuple[int, ...]:
    """The indices of `3,17,20-25`, both ends of a range included, in that order. Raises UsageError."""
    shown = f"--indices {text if len(text) <= 60 else text[:50] + '…'}"
    entries: list[tuple[str, object]] = []
    for position, part in enumerate(text.split(","), 1):
        where = f"entry {position}"
        first, dash, last = (word.strip() for word in part.partition("-"))
        ends = [number_or_word(word) for word in ((first, last) if dash else (first,))]
        if not all(isinstance(end, int) for end in ends):
            raise UsageError(f"{shown}, {where}: {part.strip()!r} is no whole number and no range", _FORMS)
        low, high = ends[0], ends[-1]
        assert isinstance(low, int)
        assert isinstance(high, int)
        if high < low:
            raise UsageError(f"{shown}, {where}: {part.strip()} runs backwards", f"{high}-{low}")
        if high >= size:
            raise _no_image(shown, where, high, size)
        if len(entries) + high - low >= _MOST_LISTED:
            raise UsageError(f"{shown} lists more than {_MOST_LISTED:,} images", "use --skip, --every and --limit")
        entries += [(where, index) for index in range(low, high + 1)]
    return _checked(shown, entries, size, _FORMS)


def read_indices(path: Path, size: int) -> tuple[int, ...]:
    """A text file with an index a line, where # begins a comment, or a JSON list; in the order of the file.

    Raises UsageError, with the line, for what is no index of a split of `size`, and for one that comes twice.
    """
    text = text_of("--indices", path, f"an index a line, or {_FORMS}")
    indices = _checked(str(path), _entries(path, text), size, "write one index a line, from 0 on")
    if not indices:
        raise UsageError(f"--indices {path} lists no image", "write one index a line, from 0 on")
    return indices


def _checked(source: str, entries: Iterable[tuple[str, object]], size: int, hint: str) -> tuple[int, ...]:
    """The indices of (position, index) entries. Raises UsageError for what is none, or comes twice."""
    seen: dict[int, str] = {}
    for where, entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, int):
            raise UsageError(f"{source}, {where}: {entry!r} is no whole number", hint)
        if not 0 <= entry < size:
            raise _no_image(source, where, entry, size)
        if entry in seen:
            raise UsageError(f"{source}, {where}: {entry} is in {seen[entry]} already", "delete one of them")
        seen[entry] = where
    return tuple(seen)


def _no_image(source: str, where: str, index: int, size: int) -> UsageError:
    return UsageError(f"{source}, {where}: there is no image {index}", f"the split has the images 0 to {size - 1}")


def _entries(path: Path, text: str) -> list[tuple[str, object]]:
    """(position, value) for each entry; a text that is no whole number stays a text."""
    if text.lstrip().startswith("["):
        try:
            return [(f"entry {position}", entry) for position, entry in enumerate(json.loads(text), 1)]
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--indices {path} is no JSON list ({error})", "write one index a line") from error
    lines = ((number, line.split("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(f"line {number}", number_or_word(word)) for number, word in lines if word]


def text_of(option: str, path: Path, holding: str) -> str:
    """The text of a file that an option names. holding: what such a file has. Raises UsageError."""
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(f"{option} {path} can't be read ({why})", f"name a file with {holding}") from error


def number_or_word(word: str) -> int | str:
    """The whole number that a word is, or the word; int() alone would accept 1_000 and ³ too."""
    return int(word) if word.isascii() and word.removeprefix("-").isdigit() and len(word) < 20 else word
