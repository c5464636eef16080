"""The formats of `caa compare --format` besides the terminal's table."""

from __future__ import annotations

from collections.abc import Callable

from caa_cli.report.latex import latex
from caa_cli.report.tables import as_csv, as_json_rows, markdown, plain
from caa_cli.results.comparison import Comparison

WRITERS: dict[str, Callable[[Comparison], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": lambda comparison: as_csv(plain(comparison)),
    "json": lambda comparison: as_json_rows(plain(comparison)),
}
