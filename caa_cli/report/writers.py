"""The formats of `caa compare --format` besides the terminal's table."""

from __future__ import annotations

from collections.abc import Callable

from caa_cli.report.latex import latex
from caa_cli.report.tables import as_json, comma_separated, markdown
from caa_cli.results.comparison import Comparison

WRITERS: dict[str, Callable[[Comparison], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "json": as_json,
}
