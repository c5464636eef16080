"""Completion in bash, which parts what is typed at `=` and `:`, and replaces only the last part by an answer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO


@contextmanager
def whole_words() -> Iterator[None]:
    """A context in which bash's question is of words as they were typed, and its answers are of their last parts.

    The script that asks is Typer's: the words are lines of COMP_WORDS, that of the cursor has the number COMP_CWORD.
    """
    if os.environ.get("_CAA_COMPLETE") != "complete_bash":
        yield
        return
    parts = os.environ["COMP_WORDS"].split("\n")[: int(os.environ["COMP_CWORD"]) + 1]
    words, begun = _joined(parts)
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    option, equals, _ = words[-1].partition("=")
    # Typer answers `--option=value` with the value alone.
    lead = option + equals if equals and option.startswith("--") else ""
    answers = StringIO()
    try:
        with redirect_stdout(answers):
            yield
    finally:
        print("\n".join((lead + answer).removeprefix(begun) for answer in answers.getvalue().splitlines()))


def _joined(parts: list[str]) -> tuple[list[str], str]:
    """(the words, what answers have in front of the last part). An empty part, the last one, is a new word."""
    words, begun, after_break = [""], "", False
    for part in parts:
        is_break = re.fullmatch("[=:]+", part) is not None
        if (is_break or after_break) and part:
            begun = words[-1] + part if is_break else words[-1]
            words[-1] += part
        else:
            begun = ""
            words.append(part)
        after_break = is_break
    return words[1:], begun
