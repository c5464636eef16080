"""The class that a targeted attack is after: what `--target` may say, and a file with a class for each image.

Free of torch. Which class `second` and `least-likely` are is known once an image has been certified (`run.targets`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caa_cli.config.ranges import did_you_mean
from caa_cli.config.selection import number_or_word, text_of
from caa_cli.errors import UsageError

SECOND, LEAST_LIKELY, RANDOM = TARGET_RULES = ("second", "least-likely", "random")
IN_WORDS = {
    SECOND: "the second most likely class of each image",
    LEAST_LIKELY: "the least likely class of each image",
    RANDOM: "a random other class of each image",
}
FORMS = f"CLASS|{'|'.join(TARGET_RULES)}|FILE"

_FILE_ENDINGS = (".txt", ".csv", ".tsv", ".json", ".jsonl")
_FILE = "file sha256"
_IN_A_FILE = "a line `index,class` for each image, or a JSON object {index: class}"


@dataclass(frozen=True)
class Classes:
    """The classes of a model. names: by number, empty where they have none."""

    count: int
    names: tuple[str, ...] = ()

    def number_of(self, source: str, named: object) -> int:
        """The number of a class by its number or name. Raises UsageError, with the nearest name, for no class."""
        text = number_or_word(str(named).strip())
        if isinstance(text, int):
            if not 0 <= text < self.count:
                raise UsageError(
                    f"{source}: there is no class {text}", f"the model knows the classes 0 to {self.count - 1}"
                )
            return text
        same = [number for number, name in enumerate(self.names) if text.casefold() == name.casefold()]
        if len(same) > 1:
            raise UsageError(
                f"{source}: classes {' and '.join(map(str, same))} are both called {text!r}",
                "name the class by its number",
            )
        if not same:
            raise UsageError(f"{source}: there is no class {text!r}", self._advice(text))
        return same[0]

    def shown(self, number: int) -> str:
        """`airplane (class 0)`, or the number where there is no name."""
        return f"{self.names[number]} (class {number})" if number < len(self.names) else f"class {number}"

    def _advice(self, text: str) -> str:
        if not self.names:
            return f"the classes have no names: give a number from 0 to {self.count - 1}, or a file"
        several = ", ".join([*self.names[:10], *("…" for _ in self.names[10:11])])
        return (
            f"{did_you_mean(text, self.names)}use a number, {', '.join(TARGET_RULES)}, a file, or a name: {several}"
        )


def target_or_file(text: str) -> tuple[str | None, Path | None]:
    """What --target names: (a class or a rule, None), or (None, a file).

    A rule goes first, then a number, then a file that exists, then the name of a class.
    """
    if text in TARGET_RULES or isinstance(number_or_word(text), int):
        return text, None
    path = Path(text)
    # Path.is_file raises for a name that is too long.
    if os.path.isfile(path) or path.suffix.lower() in _FILE_ENDINGS:  # noqa: PTH113
        return None, path
    return text, None


@dataclass(frozen=True)
class TargetText:
    """A class or a rule; which classes there are is known once the model is."""

    def check(self, option: str, value: str) -> None:
        if not value.strip():
            raise UsageError(f"{option} is empty", f"give {FORMS}")


def file_digest(path: Path) -> str:
    """The digest that stands for a file of targets where settings are compared. Raises UsageError."""
    return f"{_FILE} {hashlib.sha256(_text(path).encode()).hexdigest()[:16]}"


def target_in_words(target: str, shown: Callable[[int], str]) -> str:
    """The target of a result in words; shown: the text for a class, from its number."""
    if target.startswith(_FILE):
        return "the class that a file names for each image"
    return IN_WORDS[target] if target in IN_WORDS else shown(int(target))


def read_targets(path: Path, size: int, classes: Classes) -> Mapping[int, int]:
    """The target class by image, of a split of `size` images.

    The file is one of: lines `index,class` (or with blanks or tabs between them; a heading may be first, # begins a
    comment); a class a line, for the images 0, 1, 2, …; a JSON object {index: class} or a JSON list of classes; JSON
    lines with `index` and `target`. A class is a number or a name. Raises UsageError, with the line.
    """
    text = _text(path)
    begins, targets = text.lstrip()[:1], dict[int, int]()
    try:
        entries = _json_entries(text) if begins in ("{", "[") else _text_entries(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--target {path} can't be read as JSON ({error})", f"write {_IN_A_FILE}") from error
    for where, index, named in entries:
        source = f"--target {path}, {where}"
        if isinstance(index, bool) or not isinstance(index, int):
            raise UsageError(f"{source}: {index!r} is not the index of an image", f"write {_IN_A_FILE}")
        if not 0 <= index < size:
            raise UsageError(f"{source}: there is no image {index}", f"the split has the images 0 to {size - 1}")
        if index in targets:
            raise UsageError(f"{source}: image {index} has a target already", "delete one of them")
        if named is None or isinstance(named, (bool, float, list, dict)):
            raise UsageError(f"{source}: {named!r} is no class", "give its number or its name")
        targets[index] = classes.number_of(source, named)
    if not targets:
        raise UsageError(f"--target {path} names no class", f"write {_IN_A_FILE}")
    return targets


def check_covers(path: Path, targets: Mapping[int, int], indices: Sequence[int]) -> None:
    """Raises UsageError where an image that is to be attacked has no target."""
    absent = [index for index in indices if index not in targets]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise UsageError(
            f"--target {path} names no class for image {absent[0]}{more}",
            f"add it, or select the images that have one with --indices; the file has {len(targets)}",
        )


def random_class(seed: int, index: int, label: int, count: int) -> int:
    """A class other than the label, each as likely, that depends on these numbers alone."""
    digest = hashlib.sha256(f"target of image {index}, seed {seed}".encode()).digest()
    drawn = int.from_bytes(digest, "big") % (count - 1)
    return drawn + (drawn >= label)


Entries = Sequence[tuple[str, object, Any]]


def _text(path: Path) -> str:
    return text_of("--target", path, _IN_A_FILE)


def _json_entries(text: str) -> Entries:
    """(where, index, class) of each entry of a JSON document, or of JSON lines. Raises ValueError."""
    try:
        document = json.loads(text, object_pairs_hook=_every_key)
    except json.JSONDecodeError:
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        if len(lines) < 2:
            raise
        return _records([(f"line {number}", json.loads(line)) for number, line in lines])
    if isinstance(document, list) and any(isinstance(entry, dict) for entry in document):
        return _records([(f"entry {number}", entry) for number, entry in enumerate(document, 1)])
    if isinstance(document, list):
        return [(f"entry {number}", number - 1, entry) for number, entry in enumerate(document, 1)]
    if document.keys() == {"index", "target"}:  # JSON lines of one line
        return _records([("line 1", document)])
    return [(f"entry {key!r}", number_or_word(key), entry) for key, entry in document.items()]


def _records(entries: Sequence[tuple[str, Any]]) -> Entries:
    for where, entry in entries:
        if not isinstance(entry, dict) or not {"index", "target"} <= entry.keys():
            raise ValueError(f"{where} is no object with index and target")
    return [(where, entry["index"], entry["target"]) for where, entry in entries]


def _every_key(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON text. Raises ValueError for a key that comes twice, which json would swallow."""
    document = dict(pairs)
    if len(document) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} comes twice")
    return document


def _text_entries(text: str) -> Entries:
    """(where, index, class) of each line: an index and a class or, where no line has two words, a class alone."""
    written = [re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines()]
    lines = [(f"line {number}", line) for number, line in enumerate(written, 1) if line]
    if lines and re.fullmatch(r"index\s*[,;\s]\s*(target|class)", lines[0][1].lower()):
        lines = lines[1:]
    pairs = [(where, re.fullmatch(r"([0-9]+)\s*[,;\s]\s*(.+)", line)) for where, line in lines]
    if not any(pair for _, pair in pairs):
        return [(where, number, line) for number, (where, line) in enumerate(lines)]
    return [
        (where, number_or_word(pair[1]), pair[2].strip()) if pair else (where, line, None)
        for (where, pair), (_, line) in zip(pairs, lines, strict=True)
    ]
