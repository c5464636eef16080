"""The table of a comparison: for people, papers and programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from caa_cli.report import escapes
from caa_cli.results.comparison import Comparison
from caa_cli.results.metrics import Figures


@dataclass(frozen=True)
class Heading:
    """A column. text, latex: its heading.  shown: its value.  interval: the name of its bootstrap interval."""

    text: str
    latex: str
    shown: Callable[[Figures], float | None]
    digits: int = 0
    factor: float = 1.0
    interval: str | None = None


HEADINGS = (
    Heading("success %", r"Succ.\ \%", lambda f: f.success_rate, 0, 100, "success_rate"),
    Heading("best %", r"Best \%", lambda f: f.best_share, 0, 100, "best_share"),
    Heading("near-best %", r"Near \%", lambda f: f.near_best_share, 0, 100, "near_best_share"),
    Heading("r₅₀", "$r_{50}$", lambda f: f.median_radius, 3, 1, "median_radius"),
    Heading("%-C", r"\%-C", lambda f: f.median_percent, 0, 1, "median_percent"),
    Heading("r₅₀ common", r"$r_{50}^\cap$", lambda f: f.common_median_radius, 3, 1, "common_median_radius"),
    Heading("%-C common", r"\%-C$^\cap$", lambda f: f.common_median_percent, 0, 1, "common_median_percent"),
    Heading("s/image", "Time (s)", lambda f: f.seconds, 2),
    Heading("forward k", "Fwd.\\ (k)", lambda f: f.forward, 1, 1e-3),
    Heading("backward k", "Bwd.\\ (k)", lambda f: f.backward, 1, 1e-3),
)

Cell = tuple[str, str]  # the value, and its interval or ""


def cells(comparison: Comparison) -> list[list[Cell]]:
    """One row for each attack, with one cell for each heading."""
    rows = []
    for position, figures in enumerate(comparison.figures):
        row: list[Cell] = []
        for heading in HEADINGS:
            found = comparison.intervals[position] if comparison.intervals else {}
            ends = found.get(heading.interval) if heading.interval else None
            spread = "–".join(_shown(end, heading) for end in ends) if ends else ""
            row.append((_shown(heading.shown(figures), heading), spread))
        rows.append(row)
    return rows


def _shown(value: float | None, heading: Heading) -> str:
    return "–" if value is None else f"{value * heading.factor:.{heading.digits}f}"


def caption(comparison: Comparison) -> str:
    """The caption: which images the figures are over."""
    common = comparison.figures[0].common
    spread = f"; 95% bootstrap intervals, {comparison.resamples} resamples" if comparison.resamples else ""
    return (
        f"{len(comparison.eligible)} eligible of {len(comparison.images)} images; “common”: the {common} that every "
        f"attack broke{spread}"
    )


def markdown(comparison: Comparison) -> str:
    """The table in Markdown."""
    lines = [
        "| attack | " + " | ".join(heading.text for heading in HEADINGS) + " |",
        "|---|" + "--:|" * len(HEADINGS),
    ]
    for label, row in zip(comparison.labels, cells(comparison), strict=True):
        shown = [f"{value} [{spread}]" if spread else value for value, spread in row]
        lines.append(f"| {escapes.markdown(label)} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", caption(comparison) + "."]) + "\n"


def plain(comparison: Comparison) -> list[dict[str, Any]]:
    """One row for each attack, unrounded, for csv and json; an interval is two columns."""
    rows = []
    for position, (label, figures) in enumerate(zip(comparison.labels, comparison.figures, strict=True)):
        row: dict[str, Any] = {"attack": label, "eligible": len(comparison.eligible), **asdict(figures)}
        for name, ends in (comparison.intervals[position] if comparison.intervals else {}).items():
            row[f"{name}_low"], row[f"{name}_high"] = ends or (None, None)
        rows.append(row)
    return rows


def comma_separated(comparison: Comparison) -> str:
    """The table as CSV; a missing value is an empty cell."""
    rows = [{**row, "attack": escapes.csv_cell(row["attack"])} for row in plain(comparison)]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(comparison: Comparison) -> str:
    return json.dumps(plain(comparison), indent=2, allow_nan=False) + "\n"
