"""The terminal: messages, tables and progress bars. The only module that uses Rich.

Everything for a person goes to stderr except the final table, which goes to stdout; with --json stdout carries
the JSON document and nothing else.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape as escape_markup
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

# The interval of progress lines where stderr is no terminal.
PLAIN_INTERVAL_SECONDS = 30.0

# The shortest interval between updates of a costly text, such as a median over all images so far.
REFRESH_SECONDS = 0.5

Rows = Sequence[tuple[str, str]]


# Characters that a terminal does not show but obeys: control characters except newline and tab, marks of the writing
# direction, and surrogates, which can't be encoded.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Escape characters that a terminal would obey: names and texts may come from untrusted files.

    Further lines are indented, so that no text can imitate a message of caa.
    """
    spelt = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return spelt.replace("\n", "\n  ")


def escape(text: str) -> str:
    """As `visible`, with Rich's markup escaped too."""
    return escape_markup(visible(text))


class Bar(Protocol):
    """A progress bar. text: intermediate results.  now: what is being worked on."""

    def update(self, done: float, text: str = "", now: str = "") -> None: ...


class Display:
    """Output for a person. quiet: errors and warnings only.  json_only: stdout carries only the JSON document.

    process: the name of this process where several share a terminal; live bars are then off.
    """

    def __init__(self, quiet: bool = False, json_only: bool = False, process: str = "") -> None:
        self.quiet, self.json_only, self.process = quiet, json_only, process
        self.err = Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=False if process else None)
        self.out = Console(highlight=False)

    def note(self, text: str) -> None:
        if not self.quiet:
            self.err.print(escape(text), style="dim" if self.err.is_terminal else None)

    def warn(self, text: str) -> None:
        self.err.print(f"[yellow]warning:[/] {escape(text)}")

    def error(self, problem: str, hint: str | None) -> None:
        self.err.print(f"[bold red]error:[/] {escape(problem)}")
        if hint:
            self.err.print(f"[bold]try:[/]   {escape(hint)}")

    def interrupted(self, done: int, total: int, output: object, again: str) -> None:
        self.warn(f"interrupted: {done} of {total} images are done and saved in {output}")
        self.warn(f"go on with: {again}")

    def plan(self, title: str, rows: Rows) -> None:
        """Show the settings of a run that is about to start."""
        if not self.quiet:
            self._table(self.err, title, rows)

    def result(self, title: str, rows: Rows) -> None:
        """Show the final table."""
        if not self.quiet and not self.json_only:
            self._table(self.out, title, rows)

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

        On a narrow terminal it is divided into several tables, one below the other.
        """
        if self.quiet or self.json_only:
            return
        # A file or a pipe has no width to fit.
        console = self.out if self.out.is_terminal else Console(file=self.out.file, highlight=False, width=1000)
        # Headings of two words take two lines, which makes columns narrow.
        columns = [[heading.replace(" ", "\n"), *(row[i] for row in rows)] for i, heading in enumerate(headings)]
        widths = [max(len(line) for cell in column for line in cell.splitlines() or [""]) for column in columns]
        first = min(widths[0], max(console.width // 3, 12))
        console.print(f"[bold]{escape(title)}[/]")
        for group in _groups(widths, console.width - first - 4):  # its edges and padding
            table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
            table.add_column(columns[0][0], style="cyan", overflow="fold", width=first)
            for position in group:
                table.add_column(columns[position][0], justify="right", no_wrap=True)
            for row in rows:
                cells = (row[position].split("\n") for position in group)
                table.add_row(escape(row[0]), *("\n".join(map(escape, lines)) for lines in cells))
            console.print(table)
        console.print(escape(caption))

    @contextmanager
    def bar(self, what: str, total: int, start: int = 0) -> Iterator[Bar]:
        """A live bar on a terminal, or a line every half minute elsewhere."""
        what = f"{self.process}: {what}" if self.process else what
        if self.quiet:
            yield _Silent()
        elif self.err.is_terminal:
            with _Live(self.err) as progress:
                yield _LiveBar(progress, what, total, start)
        else:
            plain = _PlainBar(self.err, what, total, start)
            yield plain
            plain.close()

    @staticmethod
    def _table(console: Console, title: str, rows: Rows) -> None:
        table = Table(title=escape(title), title_justify="left", title_style="bold", show_header=False, box=None)
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(escape(name), escape(value))
        console.print(table)


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

    def result(self, title: str, rows: Rows) -> None:
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


class _Silent:
    def update(self, done: float, text: str = "", now: str = "") -> None:
        pass


class _Live(Progress):
    """A bar with a line of text below it, cut to the width of the terminal."""

    def __init__(self, console: Console) -> None:
        self.line = Text("", no_wrap=True, overflow="ellipsis")
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=600,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        yield self.line


class _LiveBar:
    def __init__(self, progress: _Live, what: str, total: int, start: int) -> None:
        self.progress = progress
        self.task = progress.add_task(what, total=total, completed=start)

    def update(self, done: float, text: str = "", now: str = "") -> None:
        self.progress.line.plain = visible(" · ".join(part for part in (text, now) if part))
        self.progress.update(self.task, completed=done)


class _PlainBar:
    def __init__(self, console: Console, what: str, total: int, start: int) -> None:
        self.console, self.what, self.total, self.start = console, what, total, start
        self.began = time.monotonic()
        self.printed = self.began
        self.latest: tuple[float, str] = (start, "")
        self.shown: tuple[float, str] | None = None

    def update(self, done: float, text: str = "", now: str = "") -> None:
        self.latest = (done, text)
        if time.monotonic() - self.printed >= PLAIN_INTERVAL_SECONDS:
            self._print()

    def close(self) -> None:
        if self.latest != self.shown:
            self._print()

    def _print(self) -> None:
        self.printed = time.monotonic()
        self.shown = (done, text) = self.latest
        elapsed = self.printed - self.began
        parts = [f"{self.what} {done:.0f}/{self.total}", text, f"{clock(elapsed)} elapsed"]
        if self.start < done < self.total:
            parts.append(f"about {clock(elapsed * (self.total - done) / (done - self.start))} left")
        self.console.print(escape(" · ".join(part for part in parts if part)))


def clock(seconds: float) -> str:
    """A duration as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float | None, digits: int = 3, unit: str = "") -> str:
    """A rounded number with its unit; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}{unit}"
