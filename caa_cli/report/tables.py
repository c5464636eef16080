"""The table of a comparison: for people, papers and programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from caa_cli.report import escapes
from caa_cli.results.bootstrap import FEWEST
from caa_cli.results.comparison import Comparison, finite
from caa_cli.results.metrics import Figures
from caa_cli.results.proportions import Interval


@dataclass(frozen=True)
class Heading:
    """A column. text, latex: its heading.  shown: its value.  interval: the name of its 95% interval.

    count: the number of images that the value is over, where it is not that of the caption.
    """

    text: str
    latex: str
    shown: Callable[[Figures], float | None]
    digits: int = 0
    factor: float = 1.0
    interval: str | None = None
    count: Callable[[Figures], int | None] | None = None


# What can't mislead about an attack that fails on some images, in a terminal's width.
HEADINGS = (
    Heading("success %", r"Succ.\ \%", lambda f: f.success_rate, 0, 100, "success_rate"),
    Heading("best %", r"Best \%", lambda f: f.best_share, 0, 100, "best_share"),
    Heading("r₅₀", "$r_{50}$", lambda f: f.overall_median_radius, 3, 1, "overall_median_radius"),
    Heading("%-C", r"\%-C", lambda f: f.overall_median_percent, 0, 1, "overall_median_percent"),
    Heading("optimality", "Opt.", lambda f: f.optimality, 3, 1, "optimality"),
    Heading("nearer %", r"Nearer \%", lambda f: f.nearer_share, 0, 100, "nearer_share"),
    Heading(
        "ratio (n)",
        "Ratio ($n$)",
        lambda f: f.median_radius_ratio,
        3,
        1,
        "median_radius_ratio",
        count=lambda f: f.both_attacked,
    ),
    Heading("evals k", r"Eval.\ (k)", lambda f: _sum(f.forward, f.backward), 1, 1e-3),
)
# The rest, in the order of the columns above that they explain.
FURTHER = (
    Heading("near-best %", r"Near \%", lambda f: f.near_best_share, 0, 100, "near_best_share"),
    Heading("farther %", r"Farther \%", lambda f: f.farther_share, 0, 100, "farther_share"),
    Heading("tied %", r"Tied \%", lambda f: f.tied_share, 0, 100, "tied_share"),
    Heading("difference", r"$\Delta r$", lambda f: f.median_radius_difference, 3, 1, "median_radius_difference"),
    Heading("r₅₀ successes", "$r_{50}^+$", lambda f: f.median_radius, 3, 1, "median_radius"),
    Heading("%-C successes", r"\%-C$^+$", lambda f: f.median_percent, 0, 1, "median_percent"),
    Heading("r₅₀ common", r"$r_{50}^\cap$", lambda f: f.common_median_radius, 3, 1, "common_median_radius"),
    Heading("%-C common", r"\%-C$^\cap$", lambda f: f.common_median_percent, 0, 1, "common_median_percent"),
    Heading("s/image", "Time (s)", lambda f: f.seconds, 2),
    Heading("forward k", r"Fwd.\ (k)", lambda f: f.forward, 1, 1e-3),
    Heading("backward k", r"Bwd.\ (k)", lambda f: f.backward, 1, 1e-3),
)

Cell = tuple[str, str]  # the value, and its interval or ""


def cells(comparison: Comparison, headings: Sequence[Heading] = HEADINGS) -> list[list[Cell]]:
    """One row for each attack, with one cell for each heading."""
    rows = []
    for figures, intervals in zip(comparison.figures, comparison.intervals, strict=True):
        row: list[Cell] = []
        for heading in headings:
            row.append((_with_count(figures, heading), _spread(figures, heading, intervals)))
        rows.append(row)
    return rows


def _spread(figures: Figures, heading: Heading, intervals: dict[str, Interval | None]) -> str:
    """The interval; a dash where there is none because the images are too few."""
    if heading.interval not in intervals or heading.shown(figures) is None:
        return ""
    ends = intervals[heading.interval]
    return "–".join(_shown(end, heading) for end in ends) if ends else "–"


def _with_count(figures: Figures, heading: Heading) -> str:
    shown, count = _shown(heading.shown(figures), heading), heading.count and heading.count(figures)
    return shown if count is None else f"{shown} ({count})"


def _shown(value: float | None, heading: Heading) -> str:
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{round(value * heading.factor, heading.digits) + 0.0:.{heading.digits}f}"  # + 0.0: no -0


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def grid_rows(comparison: Comparison) -> list[list[str]]:
    """The rows for a terminal: the label, and the cells with their intervals below them."""
    return [
        [label, *(f"{value}\n{spread}" if spread else value for value, spread in row)]
        for label, row in zip(comparison.labels, cells(comparison), strict=True)
    ]


def caption(comparison: Comparison) -> str:
    """The caption: which images the figures are over, and which attack the others are held against."""
    intervals = f"; 95% intervals, exact for shares{_resampled(comparison)}" if comparison.resamples else ""
    return (
        f"{len(comparison.eligible)} eligible of {len(comparison.images)} images; nearer and ratio are against "
        f"{comparison.reference}{intervals}"
    )


def explanation(comparison: Comparison) -> str:
    """What the columns of HEADINGS mean, for below the table."""
    return f"{len(comparison.eligible)} eligible of {len(comparison.images)} images. {of_columns(comparison)}"


def of_columns(comparison: Comparison) -> str:
    """What the columns of HEADINGS mean, without the number of images."""
    exact = ", exact for shares" if comparison.resamples else ", exact"
    return (
        "r₅₀ and %-C are medians over all eligible images, a failure counting as ∞; optimality is 1 for an attack "
        f"that is the nearest on every image; nearer and ratio are against {comparison.reference}, the ratio over "
        "the (n) images that both attacked; evals are forward and backward, of an image. Ranges are 95% intervals"
        f"{exact}{_resampled(comparison)}."
    )


def _resampled(comparison: Comparison) -> str:
    if not comparison.resamples:
        return ""
    return f", others by {comparison.resamples} bootstrap resamples, from {FEWEST} images on"


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, and a second one with the further figures."""
    lines: list[str] = []
    for headings in (HEADINGS, FURTHER):
        lines += [
            "| attack | " + " | ".join(heading.text for heading in headings) + " |",
            "|---|" + "--:|" * len(headings),
        ]
        for label, row in zip(comparison.labels, cells(comparison, headings), strict=True):
            shown = [f"{value} [{spread}]" if spread else value for value, spread in row]
            lines.append(f"| {escapes.markdown(label)} | {' | '.join(shown)} |")
        lines.append("")
    return "\n".join([*lines, escapes.markdown(explanation(comparison))]) + "\n"


def plain(comparison: Comparison) -> list[dict[str, Any]]:
    """One row for each attack, unrounded, for csv and json; an interval is two columns. A median may be infinite."""
    rows = []
    for label, figures, intervals in zip(comparison.labels, comparison.figures, comparison.intervals, strict=True):
        row: dict[str, Any] = {"attack": label, "eligible": len(comparison.eligible), **asdict(figures)}
        for name, ends in intervals.items():
            row[f"{name}_low"], row[f"{name}_high"] = ends or (None, None)
        rows.append(row)
    return rows


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV; a missing value is an empty cell, infinity `inf`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: escapes.csv_cell(v) if isinstance(v, str) else v for k, v in row.items()})
    return text.getvalue()


def as_json_rows(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as strict JSON, with null for infinity."""
    plain_rows = [{k: finite(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    return json.dumps(plain_rows, indent=2, allow_nan=False) + "\n"


def comma_separated(comparison: Comparison) -> str:
    """The table as CSV."""
    return as_csv(plain(comparison))


def as_json(comparison: Comparison) -> str:
    """The table as JSON."""
    return as_json_rows(plain(comparison))
