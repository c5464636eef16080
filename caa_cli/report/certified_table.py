"""The table of certified accuracies of several models: for people, papers and programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caa_cli.display import number
from caa_cli.report import escapes
from caa_cli.report.latex import power
from caa_cli.report.tables import Cell, as_grid, as_markdown
from caa_cli.results.comparison_of_certificates import CertifiedComparison
from caa_cli.runtime.words import counted

# As many radii as fit in a terminal's width.
MOST_RADII = 9


def headings(comparison: CertifiedComparison) -> list[str]:
    """The columns: radii, and the average radius with its standard error."""
    shares = [f"{at} %" for at in _radii(comparison)]
    return ["model", *shares] if comparison.radius is not None else ["model", *shares, "average radius", "± error"]


def cells(comparison: CertifiedComparison) -> list[list[Cell]]:
    """One row for each model, with one cell for each heading but the first."""
    rows: list[list[Cell]] = []
    for shares, summary in zip(comparison.shares, comparison.summaries, strict=True):
        row = [
            (f"{100 * share:.1f}", "–".join(f"{100 * end:.0f}" for end in ends)) for share, ends in shares.values()
        ]
        chosen = [cell for at, cell in zip(shares, row, strict=True) if at in _radii(comparison)]
        if comparison.radius is None:
            errors = (summary.average_certified_radius, summary.average_certified_radius_error)
            chosen += [(number(value), "") for value in errors]
        rows.append(chosen)
    return rows


def grid_rows(comparison: CertifiedComparison) -> list[list[str]]:
    """The rows for a terminal."""
    return as_grid(comparison.labels, cells(comparison))


def explanation(comparison: CertifiedComparison) -> str:
    """What the columns mean, for below the table."""
    config = comparison.models[0].parts[0].config
    average = "; average radius: 0 where wrong, with its standard error" if comparison.radius is None else ""
    return (
        f"{counted(len(comparison.images), 'image')}. % of them that are classified correctly and certified at "
        f"an L2 radius (n = {config['samples']}, α = {config['alpha']:g}), an abstention being wrong{average}. "
        "Ranges are exact 95% intervals."
    )


def markdown(comparison: CertifiedComparison) -> str:
    """The table in Markdown."""
    table = as_markdown(headings(comparison), comparison.labels, cells(comparison))
    return f"{table}\n{escapes.markdown(explanation(comparison))}\n"


def latex(comparison: CertifiedComparison) -> str:
    """The table in LaTeX, for the package booktabs."""
    average = ["Average radius", r"$\pm$ error"] if comparison.radius is None else []
    columns = [*_radii(comparison), *average]
    config = comparison.models[0].parts[0].config
    rows = [
        "    " + " & ".join([escapes.latex(label), *(value.replace("–", "--") for value, _ in row)]) + r" \\"
        for label, row in zip(comparison.labels, cells(comparison), strict=True)
    ]
    lines = [
        r"\begin{table}",
        rf"  \caption{{Certified accuracy (\%) at $L_2$ radii, of {counted(len(comparison.images), 'image')}; "
        rf"$n = {config['samples']}$, $\alpha = {power(config['alpha'])}$.}}",
        r"  \centering",
        rf"  \begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"    \toprule",
        "    " + " & ".join(["Model", *columns]) + r" \\",
        r"    \midrule",
        *rows,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def plain(comparison: CertifiedComparison) -> list[dict[str, Any]]:
    """One row for each model, unrounded, with every radius; an interval is two columns."""
    rows = []
    for label, summary, shares in zip(comparison.labels, comparison.summaries, comparison.shares, strict=True):
        row: dict[str, Any] = {"model": label, "images": len(comparison.images), "abstained": summary.abstained}
        for name in ("average_certified_radius", "average_certified_radius_error", "median_radius"):
            row[name] = getattr(summary, name)
        for at, (share, ends) in shares.items():
            name = f"certified_accuracy@{at}"
            row |= {name: share, f"{name}_low": ends[0], f"{name}_high": ends[1]}
        rows.append(row)
    return rows


def _radii(comparison: CertifiedComparison) -> Sequence[str]:
    """The radii of the table: every second, fourth, … one where there are many."""
    every = list(comparison.shares[0])
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128) if len(every[::step]) <= MOST_RADII)
    return every[::step]
