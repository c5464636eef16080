"""The command in a process of its own, a fork of this one: it starts at once, and what it took is known."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from support import caa

from caa_cli.cli.app import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: peak is the most memory that it or a child of it held, in bytes."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak: int


def prepare() -> None:
    """Imports what the commands need, so that no fork has to."""
    caa("inspect", "demo")
    caa("attack", "--checkpoint", "demo", "--limit", "1", "--dry-run")


def run(*words: str | Path, seconds: float = 30) -> Ended:
    """Runs the command; one that takes longer is killed, and has the code -SIGKILL."""
    output, errors = Path(".stdout"), Path(".stderr")
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(list(map(str, words)), output, errors)
    status = usage = None
    while status is None:
        found, ended, usage = os.wait4(pid, os.WNOHANG)
        if found:
            status = ended
        elif time.monotonic() - began > seconds:
            os.kill(pid, signal.SIGKILL)
        else:
            time.sleep(0.002)
    took = time.monotonic() - began
    texts = [path.read_text(encoding="utf-8") for path in (output, errors)]
    output.unlink()
    errors.unlink()
    return Ended(os.waitstatus_to_exitcode(status), *texts, took, 1024 * usage.ru_maxrss)


def _become(words: list[str], output: Path, errors: Path) -> None:
    """This process as the command that was typed."""
    code = 70
    try:
        for stream, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        sys.argv = ["caa", *words]
        try:
            main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
