"""The tables of attacks on several models, those of each model together."""

from __future__ import annotations

from typing import Any

from caa_cli.report import escapes, tables
from caa_cli.report.headings import HEADINGS
from caa_cli.report.latex import latex as latex_of_one
from caa_cli.results.comparison_of_models import ModelsComparison
from caa_cli.runtime.words import counted


def grid_rows(models: ModelsComparison) -> list[list[str]]:
    """The rows for a terminal: the model's label, and its attacks below it."""
    rows = []
    for label, comparison in models.comparisons.items():
        rows.append([label, *[""] * len(HEADINGS)])
        rows += [[f"  {attack}", *cells] for attack, *cells in tables.grid_rows(comparison)]
    return rows


def explanation(models: ModelsComparison) -> str:
    """What the columns mean, for below the table. Each model has its own eligible images."""
    first = next(iter(models.comparisons.values()))
    counts = ", ".join(f"{label} {len(comparison.eligible)}" for label, comparison in models.comparisons.items())
    several = len({comparison.reference for comparison in models.comparisons.values()}) > 1
    reference = "the first attack of each model" if several else None
    return f"Eligible of {counted(len(first.images), 'image')}: {counts}; {tables.of_columns(first, reference)}"


def markdown(models: ModelsComparison) -> str:
    """A section for each model, in Markdown."""
    return "\n".join(
        f"## {escapes.markdown(label)}\n\n{tables.markdown(comparison)}"
        for label, comparison in models.comparisons.items()
    )


def latex(models: ModelsComparison) -> str:
    """A table for each model, in LaTeX."""
    return "\n".join(latex_of_one(comparison, label) for label, comparison in models.comparisons.items())


def plain(models: ModelsComparison) -> list[dict[str, Any]]:
    """One row for each attack on each model, unrounded."""
    return [
        {"model": label, **row}
        for label, comparison in models.comparisons.items()
        for row in tables.plain(comparison)
    ]
