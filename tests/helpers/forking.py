"""The command in a copy of this process. It begins at once: a new interpreter takes 2 s to import PyTorch.

For what a command does at its work; how it is loaded, its streams' encodings and its end are `support.start`'s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

from support import ENVIRONMENT

from caa_cli.cli.app import main


def fork(
    *words: str | Path,
    before: Callable[[], Any] = lambda: None,
    env: Mapping[str, str] = ENVIRONMENT,
    **settings: Any,
) -> subprocess.Popen[str]:
    """Runs the command, its output in pipes; before: what the copy does first."""

    def begin() -> None:
        os.closerange(3, 1024)  # among them the pipe that tells Popen of a failure to begin: it waits for its end
        os.environ.clear()
        os.environ.update(env)
        become(words, before)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(["caa"], preexec_fn=begin, restore_signals=False, **pipes | settings)  # noqa: PLW1509


def signals_itself(condition: Callable[[], object], *signals: int) -> Callable[[], None]:
    """What `fork` does first so that the process gets these signals once the condition holds.

    It waits where the process waits: on a busy machine another one may be given no time until this one has ended.
    """

    def send() -> None:
        for signum in signals:
            os.kill(os.getpid(), signum)

    return lambda: act_once(condition, send)  # in the child: a fork ends its parent's threads


def act_once(condition: Callable[[], object], action: Callable[[], object]) -> None:
    """Starts a thread that acts when the condition holds."""

    def watch() -> None:
        while not condition():
            time.sleep(0.005)
        action()

    Thread(target=watch, daemon=True).start()


def become(words: Sequence[str | Path], before: Callable[[], Any] = lambda: None) -> NoReturn:
    """The rest of a forked process, as the command that was typed, with the streams 1 and 2."""
    code = 70
    try:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = ["caa", *map(str, words)]
        try:
            before()
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)
