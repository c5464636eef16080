"""The only owner of Rich: what a person sees.

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

# A line this often where stderr is no terminal.
PLAIN_INTERVAL_SECONDS = 30.0

# A text that takes work to make, such as a median over all images so far, is made anew no more often than this.
REFRESH_SECONDS = 0.5

Rows = Sequence[tuple[str, str]]


# What a terminal acts on instead of showing it: control characters but newline and tab, marks that turn the direction
# of writing, and halves of characters, which can't be written at all.
_ACTED_ON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with control characters spelt out, since names and texts may come from untrusted files.

    A further line is indented, so that no text can end a message and begin another.
    """
    spelt = _ACTED_ON.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return spelt.replace("\n", "\n  ")


def escape(text: str) -> str:
    """As `visible`, and with nothing in it that Rich takes for its markup."""
    return escape_markup(visible(text))


class Bar(Protocol):
    """How far the work is. `text` says how it is going; `now` what is being worked on."""

    def update(self, done: float, text: str = "", now: str = "") -> None: ...


class Display:
    """quiet: errors and warnings only. json_only: stdout is kept for the JSON document.

    process: the name of this one where several share a terminal, which have no room for a live bar each.
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
        """What is about to run."""
        if not self.quiet:
            self._table(self.err, title, rows)

    def result(self, title: str, rows: Rows) -> None:
        """The final table."""
        if not self.quiet and not self.json_only:
            self._table(self.out, title, rows)

    def document(self, document: dict[str, Any]) -> None:
        """The JSON document, where it was asked for."""
        if self.json_only:
            self.text(json.dumps(document, allow_nan=False) + "\n")

    def text(self, text: str) -> None:
        """A result that was asked for as text, to stdout as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def grid(self, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
        """A final table of several columns: the first names its row, the others are numbers.

        Where a terminal is too narrow for all of them there are several tables, one below the other.
        """
        if self.quiet or self.json_only:
            return
        # A file or a pipe has no width that a table would have to fit.
        console = self.out if self.out.is_terminal else Console(file=self.out.file, highlight=False, width=1000)
        # A heading of two words takes two lines, so that the numbers can stand close.
        columns = [[heading.replace(" ", "\n"), *(row[i] for row in rows)] for i, heading in enumerate(headings)]
        widths = [max(len(line) for cell in column for line in cell.splitlines() or [""]) for column in columns]
        first = min(widths[0], max(console.width // 3, 12))
        for group in _groups(widths, console.width - first - 4):  # its edges and padding
            table = Table(
                title=escape(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)
            )
            table.add_column(columns[0][0], style="cyan", overflow="fold", width=first)
            for position in group:
                table.add_column(columns[position][0], justify="right", no_wrap=True)
            for row in rows:
                cells = (row[position].split("\n") for position in group)
                table.add_row(escape(row[0]), *("\n".join(map(escape, lines)) for lines in cells))
            console.print(table)
        self.out.print(escape(caption), soft_wrap=True)

    @contextmanager
    def bar(self, what: str, total: int, start: int = 0) -> Iterator[Bar]:
        """A live bar on a terminal, a line every half minute elsewhere."""
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
    """The columns after the first, in groups that fit side by side; one that is wider than `room` is alone."""
    groups: list[list[int]] = [[]]
    used = 0
    for position, width in enumerate(widths[1:], 1):
        if groups[-1] and used + width + 2 > room:
            groups.append([])
            used = 0
        groups[-1].append(position)
        used += width + 2  # with what stands between columns
    return groups


class PartDisplay(Display):
    """For one run of several: `name` is in front of its bar, and what an earlier one displayed is not repeated.

    displayed: the texts so far, shared by all of them. found: the run's document; its result is left to the whole.
    """

    def __init__(self, whole: Display, name: str, displayed: set[str]) -> None:
        super().__init__(whole.quiet, whole.json_only, whole.process)
        self.name, self.displayed = name, displayed
        self.found: dict[str, Any] | None = None
        self.began = False

    def note(self, text: str) -> None:
        if self._new(text):
            super().note(text)

    def warn(self, text: str) -> None:
        if self._new(text):
            super().warn(text)

    def plan(self, title: str, rows: Rows) -> None:
        """The first one has the name for its title. Where nothing in it is new, all of it is shown."""
        new = [(name, value) for name, value in rows if self._new(f"{name}: {value}")]
        super().plan(title if self.began else self.name, new or rows)
        self.began = True

    def result(self, title: str, rows: Rows) -> None:
        pass

    def document(self, document: dict[str, Any]) -> None:
        self.found = document

    @contextmanager
    def bar(self, what: str, total: int, start: int = 0) -> Iterator[Bar]:
        with super().bar(f"{self.name}: {what}", total, start) as found:
            yield found

    def _new(self, text: str) -> bool:
        if text in self.displayed:
            return False
        self.displayed.add(text)
        return True


class _Silent:
    def update(self, done: float, text: str = "", now: str = "") -> None:
        pass


class _Live(Progress):
    """A bar, and below it a line on how it is going, cut to the width of the terminal."""

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
        self.last_line = self.began
        self.latest: tuple[float, str] = (start, "")
        self.shown: tuple[float, str] | None = None

    def update(self, done: float, text: str = "", now: str = "") -> None:
        self.latest = (done, text)
        if time.monotonic() - self.last_line >= PLAIN_INTERVAL_SECONDS:
            self._say()

    def close(self) -> None:
        if self.latest != self.shown:
            self._say()

    def _say(self) -> None:
        self.last_line = time.monotonic()
        self.shown = (done, text) = self.latest
        elapsed = self.last_line - self.began
        parts = [f"{self.what} {done:.0f}/{self.total}", text, f"{clock(elapsed)} elapsed"]
        if self.start < done < self.total:
            parts.append(f"about {clock(elapsed * (self.total - done) / (done - self.start))} left")
        self.console.print(escape(" · ".join(part for part in parts if part)))


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float | None, digits: int = 3, unit: str = "") -> str:
    return "–" if value is None else f"{value:.{digits}f}{unit}"
