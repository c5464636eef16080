"""Numbers in a sentence."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, noun: str, spec: str = "") -> str:
    """A number with its noun: `1 image`, `2 images`, `no class`. spec: how the number is formatted, such as `,`."""
    plural = f"{noun}es" if noun.endswith(("s", "sh", "ch", "x")) else f"{noun}s"
    return f"{count:{spec}} {noun if count == 1 else plural}"


def sizes(shape: Iterable[int]) -> str:
    """The shape of an image: `3×32×32`."""
    return "×".join(map(str, shape))
