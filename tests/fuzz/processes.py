"""The command in a process of its own, a fork of this one: it starts at once, and what it took is known."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from forking import become
from support import caa


@dataclass(frozen=True)
class Ended:
    """How a command ended. seconds: of processor time, its children's too, which is the same on a busy machine.
    peak: the most memory that it or a child of it held, in bytes."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak: int


@cache
def prepare() -> None:
    """Imports what the commands need, so that no fork has to."""
    caa("inspect", "demo")
    caa("attack", "--checkpoint", "demo", "--limit", "1", "--chunk-size", "64", "--dry-run")


def run(*words: str | Path) -> Ended:
    """Runs the command; one that has not ended after five minutes is killed, and has the code -SIGKILL."""
    output, errors = Path(".stdout"), Path(".stderr")
    deadline = time.monotonic() + 300
    pid = os.fork()
    if pid == 0:
        for stream, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), stream)
        become(words)
    status = usage = None
    while status is None:
        found, ended, usage = os.wait4(pid, os.WNOHANG)
        if found:
            status = ended
        elif time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        else:
            time.sleep(0.002)
    texts = [path.read_text(encoding="utf-8") for path in (output, errors)]
    output.unlink()
    errors.unlink()
    return Ended(os.waitstatus_to_exitcode(status), *texts, usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss)
