"""The table of a comparison in LaTeX."""

from __future__ import annotations

from caa_cli.report import escapes
from caa_cli.report.tables import HEADINGS, caption, cells
from caa_cli.results.comparison import Comparison


def latex(comparison: Comparison) -> str:
    """The table in LaTeX, for the package booktabs."""
    lines = [
        r"\begin{table}",
        rf"  \caption{{{escapes.latex(caption(comparison)).replace('“', '``').replace('”', chr(39) * 2)}.}}",
        r"  \centering",
        rf"  \begin{{tabular}}{{l{'r' * len(HEADINGS)}}}",
        r"    \toprule",
        "    Attack & " + " & ".join(heading.latex for heading in HEADINGS) + r" \\",
        r"    \midrule",
    ]
    for label, row in zip(comparison.labels, cells(comparison), strict=True):
        shown = [rf"{value} {{\scriptsize [{spread}]}}" if spread else value for value, spread in row]
        lines.append("    " + " & ".join([escapes.latex(label), *(s.replace("–", "--") for s in shown)]) + r" \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]) + "\n"
