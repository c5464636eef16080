from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import caa_cli
from caa_cli.runtime.words import counted, ordinal

PACKAGE = Path(caa_cli.__file__).parent
NOUNS = (
    "image class sample second attack shard step file checkpoint evaluation tensor network model channel epoch row "
    "line draw vote failure result setting process layer convolution resample label weight value difference device"
)
PLURALS = "|".join(counted(2, noun).removeprefix("2 ") for noun in NOUNS.split())
# Expressions that a plural may follow: words, and numbers that are never 1.
NEVER_ONE = {
    "' and '.join(map(str, classes))",
    "FEWEST",
    "MOST_ATTACKS",
    "_MOST_LISTED",
    "sizes(card.input_shape)",
    "sizes((found.channels, found.size, found.size))",
    "image.numel()",
    "images",
    "kind",
    "len(names)",
    "match[1]",
    "most",
    "shape",
    "size",
    "split",
}


@pytest.mark.parametrize(
    ("count", "noun", "spec", "text"),
    [
        (0, "image", "", "0 images"),
        (1, "image", "", "1 image"),
        (2, "class", "", "2 classes"),
        (1, "process", "", "1 process"),
        (2, "test image", "", "2 test images"),
        (30, "epoch", "", "30 epochs"),
        (12345, "tensor", ",", "12,345 tensors"),
    ],
)
def test_a_number_and_its_noun_agree(count, noun, spec, text):
    assert counted(count, noun, spec) == text


def test_ordinals():
    assert [ordinal(number) for number in (2, 3, 11, 20, 21, 112)] == ["2nd", "3rd", "11th", "20th", "21st", "112th"]


def before_plurals(text: ast.JoinedStr) -> list[str]:
    """The expressions of an f-string that a plural follows: `len(images)` of f"{len(images)} images"."""
    found = []
    for before, value, after in zip([None, *text.values], text.values, text.values[1:], strict=False):
        if not (isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant)):
            continue
        size = isinstance(before, ast.Constant) and before.value.endswith("×")  # a size, as in 28×28 pixels
        if not size and re.match(rf" (?:such |more |CUDA )?({PLURALS})(?![\w/])", after.value):
            found.append(ast.unparse(value.value))
    return found


def test_no_message_counts_1_images():
    sources = {path.relative_to(PACKAGE): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    found = [
        (str(path), expression)
        for path, source in sources.items()
        for text in ast.walk(ast.parse(source))
        if isinstance(text, ast.JoinedStr)
        for expression in before_plurals(text)
    ]
    assert {pair for pair in found if pair[1] not in NEVER_ONE} == set(), "use caa_cli.runtime.words.counted"
    assert {expression for _, expression in found} == NEVER_ONE, "NEVER_ONE lists what is no longer there"
