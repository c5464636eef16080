"""The tables of a comparison in LaTeX, for the packages booktabs and graphicx."""

from __future__ import annotations

import re
from collections.abc import Sequence

from caa_cli.report import escapes
from caa_cli.report.headings import FURTHER, HEADINGS, Heading, meaning
from caa_cli.report.tables import Cell, best, cells, ranges_explained, target_of
from caa_cli.results.comparison import Comparison
from caa_cli.runtime.words import counted


def latex(comparison: Comparison, model: str | None = None) -> str:
    """Two tables: the main figures, and the further ones.

    model: its name among several, in place of that of its file.
    """
    first = comparison.attacks[0].parts[0]
    name = model or f"{first.setting('arch')} {first.setting('dataset')} sigma {first.setting('sigma'):g}"
    label = "tab:" + ("-".join(re.findall(r"[a-z0-9.]+", name.lower())) or str(first.checkpoint["sha256"])[:7])
    head = "% \\usepackage{booktabs, graphicx}\n"
    main = head + _table(comparison, HEADINGS, _caption(comparison, model), label)
    more = f"Further figures of the attacks in Table~\\ref{{{label}}}, over the same images."
    return main + "\n" + _table(comparison, FURTHER, more, f"{label}-further")


def _table(comparison: Comparison, headings: Sequence[Heading], caption: str, label: str) -> str:
    """One table: two rows for each attack, its values and their intervals, and the meaning of the columns below."""
    rows = cells(comparison, headings)
    lines = [
        r"\begin{table*}",
        rf"  \caption{{{caption}{_of_bold(comparison)}}}",
        rf"  \label{{{label}}}",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"  \sbox0{{\begin{{tabular}}{{l{'r' * len(headings)}}}",
        r"    \toprule",
        "    Attack & " + " & ".join(heading.latex for heading in headings) + r" \\",
        r"    \midrule",
    ]
    bold = [best(comparison, heading) for heading in headings]
    for position, (attack, row) in enumerate(zip(comparison.labels, rows, strict=True)):
        values = [_value(cell, position in holders) for cell, holders in zip(row, bold, strict=True)]
        lines.append("    " + " & ".join([escapes.latex(attack), *values]) + r" \\")
        if any(spread for _, spread in row):
            spreads = [rf"{{\tiny {_number(spread)}}}" if spread else "" for _, spread in row]
            lines.append("    " + " & ".join(["", *spreads]) + r" \\")
    notes = [f"{heading.latex}: {escapes.latex(meaning(heading, comparison.reference))}." for heading in headings]
    if any(spread for row in rows for _, spread in row):
        notes.append(escapes.latex(ranges_explained(comparison)))
    lines += [
        r"    \bottomrule",
        r"  \end{tabular}}%",
        # Narrower only where the page needs it.
        r"  \ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
        r"  \par\smallskip",
        r"  \begin{minipage}{\linewidth}\scriptsize\raggedright",
        *(f"    {note}" for note in notes),
        r"  \end{minipage}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _caption(comparison: Comparison, model: str | None) -> str:
    """The model, the images, and the rule of certificates and successes."""
    first = comparison.attacks[0].parts[0]
    names = ("dataset", "split", "bound", "certificate")
    arch, *described = (escapes.latex(str(text)) for text in (first.model, *map(first.setting, names)))
    dataset, split, bound, certificate = described
    sigma, alpha = (f"$\\{name} = {power(first.setting(name))}$" for name in ("sigma", "alpha"))
    attacked = f"{escapes.latex(model)} ({arch}, {sigma})" if model else f"{arch} ({sigma})"
    certify, verify = (_samples(first.setting(name)) for name in ("certify_samples", "verify_samples"))
    images = (
        f"{len(comparison.eligible)} eligible of {counted(len(comparison.images), 'image')} of {dataset} ({split})"
    )
    target = target_of(comparison)
    aim = f" Each attack is after one target, {escapes.latex(target)}." if target else ""
    return (
        f"Attacks on {attacked} over {images}.{aim} Certificates ({certificate}): {bound} bounds at "
        f"{alpha}{certify}. Every success is verified on fresh noise at {alpha}{verify}. "
        "Radii are $L_2$, pixels in $[0, 1]$."
    )


def _samples(count: int | None) -> str:
    """The number of samples; nothing for a file that leaves it open."""
    return f", $n = {count}$ samples" if count else ""


def _of_bold(comparison: Comparison) -> str:
    """The sentence that explains bold values, after a space; empty where there are none."""
    return (
        " The best of a column is bold, where attacks can be compared by it." if len(comparison.attacks) > 1 else ""
    )


def _value(cell: Cell, is_best: bool) -> str:
    """A value, with its number of images if it has one."""
    number, _, count = cell[0].partition(" ")
    shown = rf"\textbf{{{_number(number)}}}" if is_best else _number(number)
    return f"{shown} {count}".rstrip()


def power(value: float) -> str:
    """A number for a formula, with a power of ten in place of 1e-05."""
    number, _, exponent = f"{value:g}".partition("e")
    return rf"{number} \cdot 10^{{{int(exponent)}}}" if exponent else number


def _number(text: str) -> str:
    """A number or a range, with the signs of TeX."""
    return text.replace("−", "$-$").replace("–", "--").replace("∞", r"$\infty$")
