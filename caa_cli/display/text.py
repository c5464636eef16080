"""Numbers, durations and texts as they are shown."""

from __future__ import annotations

import re
from datetime import datetime

from rich.markup import escape as escape_markup

# Characters that a terminal does not show but obeys: control characters except newline and tab, marks of the writing
# direction, surrogates, which can't be encoded, and what no XML may hold.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def visible(text: str) -> str:
    """Escape characters that a terminal would obey: names and texts may come from untrusted files.

    Further lines are indented, so that no text can imitate a message of caa.
    """
    spelt = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
    return spelt.replace("\n", "\n  ")


def escape(text: str) -> str:
    """As `visible`, with Rich's markup escaped too."""
    return escape_markup(visible(text))


def clock(seconds: float) -> str:
    """A duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float | None, digits: int = 3) -> str:
    """A rounded number; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def now() -> str:
    """The time, to the second, as lines of a log begin with."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
