"""SIGTERM and SIGUSR1 end the work as Ctrl-C does: what is finished is saved, and the run can be resumed.

They are what Slurm sends before it takes a node back (SIGUSR1 where it was asked for with --signal), and SIGTERM is
what torchrun sends to the processes that are left when one has died.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """A context in which the first of these signals raises KeyboardInterrupt in the main thread.

    Further ones are ignored, since the run is already saving what is finished.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for number in _ENDING:
            # Not SIG_IGN: Python reports a signal that has come already but finds itself ignored.
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    with _handled(interrupt, _ENDING):
        yield


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A context that defers Ctrl-C, SIGTERM and SIGUSR1 while results are written.

    A deferred signal is raised again at the end.
    """
    came: list[int] = []
    with _handled(lambda signum, _: came.append(signum), (signal.SIGINT, *_ENDING)):
        yield
    if came:
        signal.raise_signal(came[0])


@contextmanager
def ignored() -> Iterator[None]:
    """A context in which these signals are ignored, also by processes started in it."""
    with _handled(signal.SIG_IGN, (signal.SIGINT, *_ENDING)):
        yield


@contextmanager
def _handled(handler: signal._HANDLER, numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    try:
        previous = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:  # not in the main thread, where Python allows no handlers
        yield
        return
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
