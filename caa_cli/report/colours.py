"""The colours, markers and lines of the attacks in the pictures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# The colour of axes and text; on a page it is replaced by the page's text colour.
INK = "#010203"

# Near the paper's colours where it has them. Chosen by search: any two are at least 18 apart in CIELAB, as seen with
# red-green blindness too (13 with tritanopia, which is rare), and all are legible on white and on a dark page.
STYLES: dict[str, tuple[str, str, Any]] = {
    "caa": ("#2b62ae", "o", "-"),
    "caa-newton": ("#0ab2e4", "D", (0, (6, 1.5))),
    "pgd": ("#ac481f", "s", "--"),
    "ddn": ("#cb991e", "^", "-."),
    "fmn": ("#6db171", "v", (0, (4, 1, 1, 1, 1, 1))),
    "deepfool": ("#8783ff", "<", (0, (3, 1.5))),
    "cw": ("#656077", "P", (0, (5, 1, 1, 1))),
    "autoattack": ("#8a18ff", ">", (0, (2, 1))),
    "alma": ("#9aa6aa", "h", (0, (1, 1))),
    "pdgd": ("#bd2448", "p", (0, (6, 1.5, 1, 1.5))),
    "sdf": ("#6c48d8", "X", (0, (3, 1, 1, 1))),
    "apgd-min": ("#09906c", "d", (0, (1, 2))),
}
# For attacks that are not in the table, and for further ones of the same name.
_FURTHER_COLOURS = ("#d4608f", "#b0a010", "#5b9aa0", *(colour for colour, _, _ in STYLES.values()))
_MARKERS = "Xp*dos^Dv<>Ph"
_LINES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))


def colour_of(attack: str) -> str:
    """The colour of an attack, the same in every picture."""
    return STYLES[attack][0] if attack in STYLES else _FURTHER_COLOURS[0]


def styles(attacks: Sequence[str]) -> list[dict[str, Any]]:
    """{color, marker, linestyle} for each attack; a repeated one gets a colour of its own while there are some."""
    chosen: list[dict[str, Any]] = []
    taken = {value for attack in attacks if attack in STYLES for value in STYLES[attack][:2]}
    for position, attack in enumerate(attacks):
        if attack in STYLES and attack not in attacks[:position]:
            colour, marker, line = STYLES[attack]
        else:
            unused = (other for other in _FURTHER_COLOURS if other not in taken)
            colour = next(unused, _FURTHER_COLOURS[position % len(_FURTHER_COLOURS)])
            marker = next((other for other in _MARKERS if other not in taken), _MARKERS[position % len(_MARKERS)])
            line = _LINES[position % len(_LINES)]
            taken |= {colour, marker}
        chosen.append({"color": colour, "marker": marker, "linestyle": line})
    return chosen
