"""The colours, markers and lines of the attacks in the pictures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# The colour of axes and text; on a page it is replaced by the page's text colour.
INK = "#010203"

# The paper's colours where it has them, in shades that are legible on white and on black.
_COLOURS = {"caa": "#3b82f6", "pgd": "#ef4444", "deepfool": "#06a5b8", "cw": "#22a04b", "autoattack": "#c04fd8"}
_COLOURS |= {"caa-newton": "#8fbf00", "ddn": "#e08a00", "fmn": "#7c6cf0", "alma": "#8f7346"}
_FURTHER_COLOURS = ("#d4608f", "#7f8c8d", "#b0a010", "#5b9aa0", "#e08a00", "#7c6cf0", "#8f7346")
_MARKERS = "os^Dv<>Ph*"
_LINES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))


def colour_of(attack: str) -> str:
    """The colour of an attack, the same in every picture."""
    return _COLOURS.get(attack, _FURTHER_COLOURS[0])


def styles(attacks: Sequence[str]) -> list[dict[str, Any]]:
    """{color, marker, linestyle} for each attack; a repeated attack gets one of the further colours."""
    left, taken, found = list(_FURTHER_COLOURS), set(), []
    for position, attack in enumerate(attacks):
        colour = colour_of(attack)
        while colour in taken and left:
            colour = left.pop(0)
        taken.add(colour)
        marker, line = _MARKERS[position % len(_MARKERS)], _LINES[position % len(_LINES)]
        found.append({"color": colour, "marker": marker, "linestyle": line})
    return found
