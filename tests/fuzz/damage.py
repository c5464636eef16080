"""Damaged JSON: what a disk, an editor, a bad transfer or a hostile author makes of a result or a journal."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

# Texts that mean something to a terminal, a spreadsheet, Markdown, HTML, LaTeX, mathtext or a file system.
TEXTS = [
    *("", "x", "/", ".", "a\0b", "x" * 5000, "\ud800", "a\udcffb", "\x1b[31mred", "\u202egnp.exe", "a\nerror: b"),
    *("$\\frac{$", "$$", "$x^2$", "=1+1", "@SUM(A1)", "+1", "-cmd", "\t=1", "\r=1", "<script>alert(1)</script>"),
    *("[x](javascript:alert(1))", "a|b`c`", "\\input{x}", "%s{}", "100%", "caa:surrogate=gumbel"),
]
# Raw JSON, as json.dumps would not write all of them.
VALUES = [
    *("null", "true", "false", "0", "-1", "1", "7", "0.5", "-0.5", "1000000", str(10**18), str(10**400), "1" * 5000),
    *("1e308", "-1e308", "1e-320", "1e999", "NaN", "-Infinity", "[]", "{}", "[1]", "[[[]]]", '{"a": 1}', '["x", {}]'),
    *("[" * 40 + "]" * 40, "[" * 900 + "]" * 900, '{"a":' * 100_000 + "1" + "}" * 100_000),
    *(json.dumps(text) for text in TEXTS),
]
_RAW = "\uffffraw "

Damage = Callable[[random.Random, Any], str]


def mutations(document: Any, count: int, seed: int) -> Iterator[tuple[str, Any]]:
    """(what was done, the damaged document) `count` times; in it are texts to be written by `dumps`."""
    for number in range(count):
        chance = random.Random(f"{seed} {number}")
        damaged = copy.deepcopy(document)
        done = [chance.choice(_DAMAGES)(chance, damaged) for _ in range(chance.choice((1, 1, 1, 2)))]
        yield f"{number}: {'; '.join(done)}", damaged


def dumps(document: Any) -> str:
    """JSON, with the raw values of `mutations` as they are."""
    parts = json.dumps(document).split(json.dumps(_RAW)[:-1])
    text = parts[0]
    for part in parts[1:]:
        number, quote, rest = part.partition('"')
        text += VALUES[int(number)] + rest if quote else part
    return text


def cut_or_flipped(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was done, the bytes), with some of them gone, doubled or changed."""
    for number in range(count):
        chance = random.Random(f"{seed} {number} bytes")
        start = chance.randrange(len(content))
        end = min(len(content), start + chance.choice((1, 1, 2, 50)))
        kind = chance.choice(("cut", "without", "changed", "doubled"))
        changed = {
            "cut": content[:start],
            "without": content[:start] + content[end:],
            "changed": content[:start] + chance.randbytes(end - start) + content[end:],
            "doubled": content[:end] + content[start:],
        }[kind]
        yield f"{number}: {kind} from byte {start} to {end}", changed


def _places(document: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(what it is called, the object or list, its key) of everything in it."""
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(entries):
        here = f"{name}.{key}"
        yield here, document, key
        if isinstance(value, (dict, list)):
            yield from _places(value, here)


def _anywhere(chance: random.Random, document: Any) -> tuple[str, Any, Any]:
    """Of the whole or of a part, so that the few fields of a header come up as often as those of all examples."""
    top = document if isinstance(document, dict) else document[0]
    keys = list(top)
    if isinstance(document, list) and len(document) > 1 and chance.random() < 0.5:
        line = chance.randrange(1, len(document))
        return chance.choice([(f"line {line}", document, line), *_places(document[line], f"line {line}")])
    key = chance.choice(keys)
    places = [(f".{key}", top, key)]
    if isinstance(top[key], (dict, list)):
        places += _places(top[key], f".{key}")
    return chance.choice(places)


def _other_value(chance: random.Random, document: Any) -> str:
    name, holder, key = _anywhere(chance, document)
    number = chance.randrange(len(VALUES))
    holder[key] = f"{_RAW}{number}"
    return f"{name} is {VALUES[number][:30]}"


def _missing(chance: random.Random, document: Any) -> str:
    name, holder, key = _anywhere(chance, document)
    del holder[key]
    return f"{name} is missing"


def _added(chance: random.Random, document: Any) -> str:
    name, holder, _ = _anywhere(chance, document)
    number = chance.randrange(len(VALUES))
    key = chance.choice(TEXTS)
    if isinstance(holder, dict):
        holder[key] = f"{_RAW}{number}"
    else:
        holder.append(f"{_RAW}{number}")
    return f"beside {name} {key[:30]!r}: {VALUES[number][:30]}"


def _doubled(chance: random.Random, document: Any) -> str:
    """An example a second time, with another result."""
    examples = document["examples"] if isinstance(document, dict) else document
    if not isinstance(examples, list) or len(examples) < 2 or not isinstance(examples[-1], dict):
        return "nothing"
    again = {**examples[-1], "radius": 9.5, "seconds": 1.0}
    examples.append(again)
    return f"an example twice: {again.get('index')}"


_DAMAGES: list[Damage] = [_other_value] * 8 + [_missing] * 2 + [_added] * 2 + [_doubled]
