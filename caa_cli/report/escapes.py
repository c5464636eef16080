"""Escaping of untrusted texts, such as names of settings in a file, for each output format."""

from __future__ import annotations

import html
import re
import unicodedata

from caa_cli.display import visible

_LONGEST_NAME = 120

_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$"}
_LATEX |= {"{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
# LaTeX's default font encoding (OT1) shows other characters for these, and has no straight quotes.
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\ttfamily\char34}"}
_LATEX |= {"`": r"{\ttfamily\char96}", "'": r"{\ttfamily\char39}"}
# At the start of a row these would be read as arguments of the row end (\\).
_LATEX |= {"[": "{[}", "]": "{]}", "*": "{*}"}
# What pdflatex has in its fonts only as mathematics or by a name.
_LATEX |= {"–": "--", "—": "---", "“": "``", "”": "''", "‘": "`", "’": "{}'", "…": r"\dots{}", "·": r"$\cdot$"}
_LATEX |= {"×": r"$\times$", "±": r"$\pm$", "−": "$-$", "∞": r"$\infty$", "≤": r"$\le$", "≥": r"$\ge$"}
_LATEX |= {"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\varepsilon$"}
_LATEX |= {"λ": r"$\lambda$", "μ": r"$\mu$", "µ": r"$\mu$", "σ": r"$\sigma$", "τ": r"$\tau$", "χ": r"$\chi$"}
_LATEX |= {"₅": "$_5$", "₀": "$_0$", "₁": "$_1$", "₂": "$_2$", "²": "$^2$", "³": "$^3$", "°": r"$^\circ$"}
_LATEX |= {"ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}", "Ø": r"\O{}", "œ": r"\oe{}", "Œ": r"\OE{}"}
_LATEX |= {"å": r"\aa{}", "Å": r"\AA{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}"}
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u0304": "=", "\u0306": "u"}
_ACCENTS |= {"\u0307": ".", "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c"}
_MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*[]|~$#!"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def latex(text: str) -> str:
    """A text escaped for LaTeX, in ASCII; a letter that its usual fonts lack is written as [U+4E2D]."""
    composed = unicodedata.normalize("NFC", text)  # names of files on macOS have their accents apart
    escaped = "".join(map(_latex_letter, _on_one_line(composed)))
    return re.sub(r"([-,])(?=\1)", r"\1{}", escaped) if "--" in text or ",," in text else escaped


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter.isascii():
        return letter
    parts = unicodedata.normalize("NFD", letter)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        return rf"\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"{{[}}U+{ord(letter):04X}{{]}}"


def markdown(text: str) -> str:
    """A text escaped for a cell of a Markdown table: no markup, link or HTML."""
    escaped = "".join(_MARKDOWN.get(letter, letter) for letter in _on_one_line(text))
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", escaped)  # within a word it is no markup


def csv_cell(text: str) -> str:
    """A text escaped for CSV: prefixed by a quote where a spreadsheet would read a formula (OWASP, CSV injection)."""
    shown = _on_one_line(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@", "\t")) and not _is_number(shown) else shown


def markup(text: str) -> str:
    """A text escaped for HTML."""
    return html.escape(visible(text))


def whole_words(text: str) -> str:
    """A text escaped for HTML, in which no line breaks after a hyphen: `--limit` and `%-C` stay whole."""
    return re.sub(r"\S*-\S*", r'<span class="word">\g<0></span>', markup(text))


def breakable(label: str) -> str:
    """The label of an attack escaped for HTML, in which a line may break between its settings."""
    return markup(label).replace(":", ":<wbr/>")


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
