"""The table of a comparison: for people, papers and programs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from caa_cli.config.targets import target_in_words
from caa_cli.report import escapes
from caa_cli.report.headings import FURTHER, HEADINGS, Heading
from caa_cli.results.bootstrap import FEWEST
from caa_cli.results.class_names import class_name
from caa_cli.results.comparison import Comparison
from caa_cli.results.metrics import Figures
from caa_cli.results.proportions import Interval
from caa_cli.results.records import finite
from caa_cli.runtime.words import counted

Cell = tuple[str, str]  # the value, and its interval or ""


def cells(comparison: Comparison, headings: Sequence[Heading] = HEADINGS) -> list[list[Cell]]:
    """One row for each attack, with one cell for each heading."""
    return [
        [(_with_count(figures, heading), _spread(figures, heading, intervals)) for heading in headings]
        for figures, intervals in zip(comparison.figures, comparison.intervals, strict=True)
    ]


def _spread(figures: Figures, heading: Heading, intervals: dict[str, Interval | None]) -> str:
    """The interval; a dash where there is none because the images are too few."""
    if heading.figure not in intervals or heading.value(figures) is None:
        return ""
    ends = intervals[heading.figure]
    return "–".join(_shown(end, heading) for end in ends) if ends else "–"


def _with_count(figures: Figures, heading: Heading) -> str:
    shown, count = _shown(heading.value(figures), heading), heading.count and getattr(figures, heading.count)
    return shown if count is None else f"{shown} ({count})"


def _shown(value: float | None, heading: Heading) -> str:
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    text = f"{round(value * heading.factor, heading.digits) + 0.0:.{heading.digits}f}"  # + 0.0: no -0
    return text.replace("-", "−")


def best(comparison: Comparison, heading: Heading) -> set[int]:
    """The positions of the attacks whose value, rounded as it is shown, is the best of its column.

    Empty for one attack alone, and where the value does not say which is better.
    """
    if not heading.better or len(comparison.attacks) < 2:
        return set()
    values = {
        position: round(heading.better * value * heading.factor, heading.digits)
        for position, figures in enumerate(comparison.figures)
        if (value := heading.value(figures)) is not None and math.isfinite(value)
    }
    return {position for position, value in values.items() if value == max(values.values())}


def grid_rows(comparison: Comparison) -> list[list[str]]:
    """The rows for a terminal: the label, and the cells with their intervals below them."""
    return as_grid(comparison.labels, cells(comparison))


def as_grid(labels: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[list[str]]:
    """Rows for a terminal: the label, and the cells with their intervals below them."""
    return [
        [label, *(f"{value}\n{spread}" if spread else value for value, spread in row)]
        for label, row in zip(labels, rows, strict=True)
    ]


def explanation(comparison: Comparison) -> str:
    """What the columns of HEADINGS mean, for below the table."""
    return (
        f"{len(comparison.eligible)} eligible of {counted(len(comparison.images), 'image')}; {of_columns(comparison)}"
    )


def of_columns(comparison: Comparison, reference: str | None = None) -> str:
    """What the columns of HEADINGS mean, without the number of images.

    reference: what others are held against, in words, where it is not one attack.
    """
    return (
        "r₅₀, %-C: medians over all of them, a failure at ∞; optimality: 1 if nearest on every image; nearer, ratio "
        f"(on the n that both attacked): against {reference or comparison.reference}. {ranges_explained(comparison)}"
    )


def ranges_explained(comparison: Comparison) -> str:
    """What the ranges of the cells are, as a sentence."""
    if not comparison.resamples:
        return "Ranges are 95% intervals, exact."
    resampled = f"others by {comparison.resamples} bootstrap resamples, from {FEWEST} images on"
    return f"Ranges are 95% intervals, exact for shares, {resampled}."


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, and a second one with the further figures."""
    tables = [
        as_markdown(["attack", *(h.text for h in headings)], comparison.labels, cells(comparison, headings))
        for headings in (HEADINGS, FURTHER)
    ]
    return "\n".join([*tables, escapes.markdown(explanation(comparison))]) + "\n"


def as_markdown(headings: Sequence[str], labels: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A table in Markdown, its first column the labels; intervals are in brackets."""
    lines = [f"| {' | '.join(headings)} |", "|---|" + "--:|" * (len(headings) - 1)]
    for label, row in zip(labels, rows, strict=True):
        shown = [f"{value} [{spread}]" if spread else value for value, spread in row]
        lines.append(f"| {escapes.markdown(label)} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


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
    strict = [{name: finite(value) for name, value in row.items()} for row in rows]
    return json.dumps(strict, indent=2, allow_nan=False) + "\n"


def target_of(comparison: Comparison) -> str | None:
    """The target that all attacks had, in words; None where any class but the label was one."""
    target = comparison.attacks[0].parts[0].setting("target")
    names = comparison.class_names
    return None if target is None else target_in_words(str(target), lambda number: class_name(number, names))
