"""Escaping of untrusted texts, such as names of settings in a file, for each output format."""

from __future__ import annotations

import html

from caa_cli.display import visible

_LONGEST_NAME = 120

_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$"}
_LATEX |= {"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
# LaTeX's default font encoding (OT1) shows other characters for these.
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
# At the start of a row these would be read as arguments of the row end (\\).
_LATEX |= {"[": "{[}", "]": "{]}", "*": "{*}"}
_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*[]|~$#!"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def latex(text: str) -> str:
    """A text escaped for LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in _on_one_line(text))


def markdown(text: str) -> str:
    """A text escaped for a cell of a Markdown table: no markup, link or HTML."""
    return "".join(_MARKDOWN.get(letter, letter) for letter in _on_one_line(text))


def csv_cell(text: str) -> str:
    """A text escaped for CSV: prefixed by a quote where a spreadsheet would read a formula (OWASP, CSV injection)."""
    shown = _on_one_line(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@", "\t")) and not _is_number(shown) else shown


def markup(text: str) -> str:
    """A text escaped for HTML."""
    return html.escape(visible(text))


def drawn(text: str) -> str:
    """A text escaped for matplotlib, which typesets text between dollar signs as a formula; long ones are cut."""
    shown = visible(text)
    shown = shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"
    return shown.replace("$", r"\$")


def _on_one_line(text: str) -> str:
    return visible(text.replace("\n", r"\n"))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
