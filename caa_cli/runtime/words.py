"""Numbers in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def counted(count: int, noun: str, spec: str = "") -> str:
    """A number with its noun: `1 image`, `2 images`. spec: how the number is formatted, such as `,`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:{spec}} {noun if count == 1 else plural}"


def ordinal(number: int) -> str:
    """The number as a place in a row: `1st`, `22nd`, `13th`."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def first_few(values: Sequence[object], most: int) -> str:
    """The values in a row; of more than `most` the first ones, and `…`."""
    return ", ".join(map(str, values[:most])) + (", …" if len(values) > most else "")


def sizes(shape: Iterable[int]) -> str:
    """The shape of an image: `3×32×32`."""
    return "×".join(map(str, shape))
