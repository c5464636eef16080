"""Limits that every checkpoint of a classifier stays within, and the display of names from files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from caa_cli.errors import CaaError
from caa_cli.runtime.words import counted

# ResNet-152 has 932 tensors, their names have 40 characters.
MOST_TENSORS, LONGEST_NAME = 20_000, 1_000
# Characters of a name that a message shows.
_SHOWN = 80


def short(text: object, most: int = _SHOWN) -> str:
    """The text, cut in the middle where it is longer than `most` characters: files may hold names of megabytes."""
    text = str(text)
    kept = (most - 1) // 2
    return text if len(text) <= most else f"{text[:kept]}…{text[-kept:]}"


def last_line(error: Exception) -> str:
    """The end of an error's text, which says the most; of one without a text, its type."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def unusable(path: Path, name: str, what: str, count: int) -> CaaError:
    """The error for a tensor that can't be a weight. what: its description.  count: of such tensors."""
    return CaaError(
        f"the checkpoint {path} holds a tensor that can't be used: {short(name)} is {what} "
        f"({counted(count, 'such tensor')})",
        "save the weights as ordinary tensors of floating-point numbers",
    )


def check_names(path: Path, names: Collection[str]) -> None:
    """Raise CaaError if there are more tensors, or longer names, than any network has."""
    problem = None
    if len(names) > MOST_TENSORS:
        problem = f"{counted(len(names), 'tensor', ',')} (caa reads {MOST_TENSORS:,} at most)"
    elif (longest := max(map(len, names), default=0)) > LONGEST_NAME:
        problem = f"a tensor whose name has {longest:,} characters (caa reads {LONGEST_NAME:,} at most)"
    if problem is not None:
        raise CaaError(f"the checkpoint {path} holds {problem}", "check that it is the right file")
