"""Progress: a live bar on a terminal, a line from time to time in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Protocol

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from caa_cli.display.text import clock, escape, now, visible

# The interval of progress lines where stderr is no terminal.
PLAIN_INTERVAL_SECONDS = 30.0

# The shortest interval between updates of a costly text, such as a median over all images so far.
REFRESH_SECONDS = 0.5


class Bar(Protocol):
    """A progress bar. text: intermediate results.  now: what is being worked on."""

    def update(self, done: float, text: str = "", now: str = "") -> None: ...


class SilentBar:
    def update(self, done: float, text: str = "", now: str = "") -> None:
        pass


class Live(Progress):
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


class LiveBar:
    def __init__(self, progress: Live, what: str, total: int, start: int) -> None:
        self.progress = progress
        self.task = progress.add_task(what, total=total, completed=start)

    def update(self, done: float, text: str = "", now: str = "") -> None:
        self.progress.line.plain = visible(" · ".join(part for part in (text, now) if part))
        self.progress.update(self.task, completed=done)


class PlainBar:
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
        self.console.print(escape(f"{now()} " + " · ".join(part for part in parts if part)))
