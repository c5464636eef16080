"""Locks on files that only one process at a time may write."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from caa_cli.config.paths import behind_link
from caa_cli.errors import CaaError
from caa_cli.results.store.files import discard


def lock(path: Path, written: Path, option: str) -> IO[bytes]:
    """Open `path` for appending, created if need be, and lock it for this process until it is closed.

    written: the file, given by `option`, that the lock protects. Raises CaaError while another process has the lock,
    OSError where the file can't be opened.
    """
    while True:
        file = path.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise _taken(written, option) from error
        except OSError:
            return file  # a file system without locks
        if is_at(file, path):  # its last holder may have removed it after it was opened here
            return file
        file.close()


def is_at(file: IO[bytes], path: Path) -> bool:
    """Whether the open file still has this name: it may have been removed, and the name be another file's."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a process of this machine holds the lock on a file.

    Trying it would disturb who is about to take it, so it is tried only if Linux lists such a lock, by the file's
    number: a file on another disk may have the same.
    """
    try:
        inode = path.stat().st_ino
        held = Path("/proc/locks").read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
    # 1: FLOCK  ADVISORY  WRITE 1234 fe:00:2524582 0 EOF
    fields = (line.split() for line in held.splitlines())
    if not any(line[1] == "FLOCK" and line[5].rpartition(":")[2] == str(inode) for line in fields if len(line) > 5):
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # it is locked, or can't be tried
        return True
    return False


def check_free(path: Path, option: str) -> None:
    """Raises CaaError while a process of this machine holds the lock on the file, as far as `is_locked` can tell."""
    if is_locked(path):
        raise _taken(path, option)


def _taken(written: Path, option: str) -> CaaError:
    return CaaError(f"another run is writing to {written}", f"wait for it to end, or choose another {option}")


def lock_of(path: Path) -> Path:
    """The hidden file that `locked` locks for a file."""
    target = behind_link(path)
    return target.with_name(f".{target.name}.lock")


@contextmanager
def locked(files: Mapping[str, Path | None]) -> Iterator[None]:
    """A context in which no other run writes to these files, given by option; hidden files are the locks."""
    with ExitStack() as held:
        for option, path in files.items():
            if path is not None:
                place = lock_of(path)
                held.enter_context(lock(place, path, option))
                held.callback(discard, place)  # runs before the file is closed, and so unlocked
        yield
