"""The tables of attacks on several models, those of each model together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from caa_cli.report import escapes, tables
from caa_cli.report.headings import HEADINGS
from caa_cli.report.latex import latex as latex_of_one
from caa_cli.results.models import ModelsComparison


def grid_rows(found: ModelsComparison) -> list[list[str]]:
    """The rows for a terminal: the model's label, and its attacks below it."""
    rows = []
    for label, comparison in found.comparisons.items():
        rows.append([label, *[""] * len(HEADINGS)])
        rows += [[f"  {attack}", *cells] for attack, *cells in tables.grid_rows(comparison)]
    return rows


def explanation(found: ModelsComparison) -> str:
    """What the columns mean, for below the table. The eligible images are others for each model."""
    first = next(iter(found.comparisons.values()))
    counts = ", ".join(f"{label} {len(comparison.eligible)}" for label, comparison in found.comparisons.items())
    several = len({comparison.reference for comparison in found.comparisons.values()}) > 1
    reference = "the first attack of each model" if several else None
    return f"Eligible of {len(first.images)} images: {counts}; {tables.of_columns(first, reference)}"


def markdown(found: ModelsComparison) -> str:
    """A section for each model, in Markdown."""
    return "\n".join(
        f"## {escapes.markdown(label)}\n\n{tables.markdown(comparison)}"
        for label, comparison in found.comparisons.items()
    )


def latex(found: ModelsComparison) -> str:
    """A table for each model, in LaTeX."""
    return "\n".join(latex_of_one(comparison, label) for label, comparison in found.comparisons.items())


def plain(found: ModelsComparison) -> list[dict[str, Any]]:
    """One row for each attack on each model, unrounded."""
    return [
        {"model": label, **row} for label, comparison in found.comparisons.items() for row in tables.plain(comparison)
    ]


WRITERS: dict[str, Callable[[ModelsComparison], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": lambda found: tables.as_csv(plain(found)),
    "json": lambda found: tables.as_json_rows(plain(found)),
}
