"""The terminal: messages, tables and progress bars.

Everything for a person goes to stderr except the final table, which goes to stdout; with --json stdout carries
the JSON document and nothing else.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from caa_cli.display.bars import Bar, Live, LiveBar, PlainBar, SilentBar
from caa_cli.display.text import escape, now, visible
from caa_cli.runtime.streams import as_written
from caa_cli.runtime.terminal import has_colours, is_live
from caa_cli.runtime.words import counted

Rows = Sequence[tuple[str, str]]


class Display:
    """Output for a person. quiet: errors and warnings only.  json_only: stdout carries only the JSON document.

    process: the name of this process where several share a terminal; live bars are then off.
    live: whether bars are drawn on stderr; fits_width: whether tables on stdout are fitted to a terminal's width.

    Messages and rows are never broken where a command or a path would be: what does not fit is left to the terminal,
    which copies such a line as one.
    """

    def __init__(self, quiet: bool = False, json_only: bool = False, process: str = "") -> None:
        self.quiet, self.json_only, self.process = quiet, json_only, process
        self.live = is_live(sys.stderr) and not process
        self.err = Console(
            stderr=True,
            highlight=False,
            emoji=False,  # `net.py:x:` is a name
            soft_wrap=True,
            force_terminal=self.live or has_colours(sys.stderr),
            no_color=not has_colours(sys.stderr),
        )
        self.fits_width = is_live(sys.stdout)
        colours = has_colours(sys.stdout)
        self.out = Console(
            highlight=False,
            emoji=False,
            force_terminal=colours or self.fits_width,
            no_color=not colours,
            width=None if self.fits_width else 1000,  # a file or a pipe has none
        )

    def note(self, text: str) -> None:
        if not self.quiet:
            self.err.print(escape(text), style="dim" if self.err.is_terminal else None)

    def progress(self, text: str) -> None:
        """A note on how far the work is, in a log with the time in front."""
        self.note(text if self.live else f"{now()} {text}")

    def warn(self, text: str) -> None:
        self.err.print(f"[yellow]warning:[/] {escape(text)}")

    def error(self, problem: str, hint: str | None) -> None:
        self.err.print(f"[bold red]error:[/] {escape(problem)}")
        if hint:
            self.err.print(f"[bold]try:[/]   {escape(hint)}")

    def interrupted(self, done: int, total: int, output: object, again: str) -> None:
        self.warn(f"interrupted: {done} of {counted(total, 'image')} done and saved in {output}")
        self.warn(f"go on with: {again}")

    def plan(self, title: str, rows: Rows) -> None:
        """Show the settings of a run that is about to start."""
        if not self.quiet:
            _show_rows(self.err, title, rows, self.live)

    def forecast(self, title: str, rows: Rows) -> None:
        """Show what a run would take: whole, although a comparison leaves rows out of `plan` that it has shown."""
        Display.plan(self, title, rows)

    def result(self, title: str, rows: Rows, commands: Rows = ()) -> None:
        """Show the final table. commands: rows below it, each of a command to copy, which stays one line."""
        if not self.quiet and not self.json_only:
            _show_rows(self.out, title, rows, self.fits_width, commands)

    def document(self, document: dict[str, Any]) -> None:
        """Write the JSON document to stdout, with --json only."""
        if self.json_only:
            self.text(json.dumps(document, allow_nan=False) + "\n")

    def text(self, text: str) -> None:
        """Write a text to stdout, unchanged."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def grid(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
        """Show a final table whose first column names the row and whose others are numbers.

        On a narrow terminal it is divided into several tables, one below the other, and the caption, which has no
        command to copy, is broken between words.
        """
        if self.quiet or self.json_only:
            return
        # Headings of two words take two lines, which makes columns narrow.
        headings, *rows = ([as_written(cell, self.out.file) for cell in row] for row in (headings, *rows))
        columns = [[heading.replace(" ", "\n"), *(row[i] for row in rows)] for i, heading in enumerate(headings)]
        widths = [max(cell_len(visible(line)) for cell in column for line in cell.split("\n")) for column in columns]
        first = min(widths[0], max(self.out.width // 3, 12))
        self.out.print(f"[bold]{escape(title)}[/]")
        for group in _groups(widths, self.out.width - first - 3):  # its edges and padding
            table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
            table.add_column(columns[0][0], style="cyan", overflow="fold", width=first)
            for position in group:
                table.add_column(columns[position][0], justify="right", no_wrap=True)
            for row in rows:
                cells = (row[position].split("\n") for position in group)
                table.add_row(escape(row[0]), *("\n".join(map(escape, lines)) for lines in cells))
            self.out.print(table)
        for line in _wrapped(caption, self.out.width if self.fits_width else sys.maxsize):
            self.out.print(Text(line), soft_wrap=True)

    @contextmanager
    def bar(self, what: str, total: int, start: int = 0) -> Iterator[Bar]:
        """A live bar on a terminal, or a line every half minute elsewhere."""
        what = f"{self.process}: {what}" if self.process else what
        if self.quiet:
            yield SilentBar()
        elif self.live:
            with Live(self.err) as progress:
                yield LiveBar(progress, what, total, start)
        else:
            plain = PlainBar(self.err, what, total, start)
            yield plain
            plain.close()


def _show_rows(console: Console, title: str, rows: Rows, narrow: bool, commands: Rows = ()) -> None:
    """Names and values in two columns, each command a line. narrow: values are broken between words, to fit the
    console; a log has no width to fit."""
    console.print(Text(visible(title), "bold"), soft_wrap=True)
    rows, commands = ([(as_written(name, console.file), value) for name, value in each] for each in (rows, commands))
    first = max((cell_len(visible(name)) for name, _ in [*rows, *commands]), default=0) + 2
    width = max(console.width - first, 20) if narrow else sys.maxsize
    table = [(name, _wrapped(value, width)) for name, value in rows]
    table += [(name, [visible(command)]) for name, command in commands]
    for name, lines in table:
        for number, line in enumerate(lines):
            head = "" if number else visible(name)
            console.print(Text.assemble((head + " " * (first - cell_len(head)), "cyan"), line), soft_wrap=True)


def _wrapped(value: str, width: int) -> list[str]:
    """The lines of a value, broken between words, of which `n = 5` is one: half a path could not be copied."""
    pieces = [
        piece
        for line in visible(value).replace(" = ", "\0=\0").split("\n")
        for piece in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]
    ]
    return [piece.replace("\0", " ") for piece in pieces]


def _groups(widths: Sequence[int], room: int) -> list[list[int]]:
    """Divide the columns after the first into groups that fit in `room`; a wider column is a group of its own."""
    groups: list[list[int]] = [[]]
    used = 0
    for position, width in enumerate(widths[1:], 1):
        if groups[-1] and used + width + 2 > room:
            groups.append([])
            used = 0
        groups[-1].append(position)
        used += width + 2  # with the space between columns
    return groups


class AttackDisplay(Display):
    """The display of one attack of a comparison.

    name: shown before its bar.  shown: the messages of earlier attacks, shared by all, which are not repeated.
    result_document: the attack's JSON document. The final table is left to the comparison.
    """

    def __init__(self, whole: Display, name: str, shown: set[str]) -> None:
        super().__init__(whole.quiet, whole.json_only, whole.process)
        self.name, self.shown = name, shown
        self.result_document: dict[str, Any] | None = None
        self.began = False

    def note(self, text: str) -> None:
        if self._is_new(text):
            super().note(text)

    def warn(self, text: str) -> None:
        if self._is_new(text):
            super().warn(text)

    def plan(self, title: str, rows: Rows) -> None:
        """Show the settings that no earlier attack had; all of them where none is new."""
        new = [(name, value) for name, value in rows if self._is_new(f"{name}: {value}")]
        super().plan(title if self.began else self.name, new or rows)
        self.began = True

    def result(self, title: str, rows: Rows, commands: Rows = ()) -> None:
        pass

    def document(self, document: dict[str, Any]) -> None:
        self.result_document = document

    @contextmanager
    def bar(self, what: str, total: int, start: int = 0) -> Iterator[Bar]:
        with super().bar(f"{self.name}: {what}", total, start) as bar:
            yield bar

    def _is_new(self, text: str) -> bool:
        if text in self.shown:
            return False
        self.shown.add(text)
        return True
