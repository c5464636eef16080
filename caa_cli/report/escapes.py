"""Texts of others, such as names of settings in a file, in formats where some letters are acted on."""

from __future__ import annotations

import html

from caa_cli.display import visible

_LONGEST_NAME = 120

_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$"}
_LATEX |= {"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
# In LaTeX's first font these would be other characters.
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
# After the end of a row they would be taken for its options.
_LATEX |= {"[": "{[}", "]": "{]}", "*": "{*}"}
_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*[]|~$#!"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _on_one_line(text))


def markdown(text: str) -> str:
    """Text for a cell of a Markdown table: no markup, no link, no HTML."""
    return "".join(_MARKDOWN.get(letter, letter) for letter in _on_one_line(text))


def csv_cell(text: str) -> str:
    """Text for a csv cell, quoted where a spreadsheet would evaluate it (OWASP, CSV injection)."""
    shown = _on_one_line(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@", "\t")) and not _is_number(shown) else shown


def markup(text: str) -> str:
    """Text for HTML."""
    return html.escape(visible(text))


def drawn(text: str) -> str:
    """Text for matplotlib, which typesets text between dollars as a formula; a very long one is cut."""
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
