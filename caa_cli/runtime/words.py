"""Numbers in a sentence."""

from __future__ import annotations


def counted(count: int, noun: str, spec: str = "") -> str:
    """A number with its noun: `1 image`, `2 images`, `no class`. spec: how the number is formatted, such as `,`."""
    plural = f"{noun}es" if noun.endswith(("s", "sh", "ch", "x")) else f"{noun}s"
    return f"{count:{spec}} {noun if count == 1 else plural}"
