"""What may be shown on a stream: colours, and a bar that redraws its line.

NO_COLOR and FORCE_COLOR are the user's word (https://no-color.org, https://force-color.org). Where neither is set, a
terminal has colours, but not in CI: its logs are read as files, even where a job is given a terminal.
"""

from __future__ import annotations

import os
from typing import TextIO


def has_colours(stream: TextIO | None) -> bool:
    """Whether to write escape sequences for colours to this stream."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or is_live(stream)


def is_live(stream: TextIO | None) -> bool:
    """Whether a person watches this stream: a terminal that can redraw a line, outside of CI."""
    in_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    is_dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    try:
        return stream is not None and not in_ci and not is_dumb and stream.isatty()
    except ValueError:  # it is closed
        return False
