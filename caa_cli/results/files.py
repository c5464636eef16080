"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caa_cli.errors import CaaError


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Writes beside the target, syncs, then renames. Raises OSError; the target is then as it was.

    content: all of it, or piece by piece where it is too large to be held at once.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in [content] if isinstance(content, bytes) else content:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a result is as readable as any other file of the user's.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_object(path: Path) -> dict[str, Any]:
    """What the JSON file there says; nothing where there is none, or it is no object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def written(path: Path, option: str, hint: str) -> Iterator[None]:
    """A disk that fails while `path` is written raises a CaaError; hint: what it has not cost."""
    try:
        yield
    except OSError as error:
        raise CaaError(f"can't write {option} {path} ({error.strerror or error})", hint) from error


def check_writable(path: Path, option: str) -> None:
    """Raises CaaError if `path` can't be written, so that it is known before any work is done."""
    try:
        found = path.stat().st_mode
    except OSError:
        found = None  # not there yet, or its folder can't be used, which shows below
    if found is not None and not stat.S_ISDIR(found) and not stat.S_ISREG(found):
        # A device or a pipe would be replaced by a file: /dev/null, for root.
        raise CaaError(f"{option} {path} is no regular file", f"name another with {option}")
    if found is not None and stat.S_ISDIR(found):
        raise CaaError(f"{option} {path} is a folder", f"name a file in it: {option} {path / 'result.json'}")
    folder = path.parent
    if not folder.is_dir():
        raise CaaError(f"the folder of {option} {path} does not exist", f"create it first: mkdir -p {folder}")
    try:
        descriptor, probe = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    except OSError as error:
        raise CaaError(
            f"can't write in {folder.resolve()} ({error.strerror})",
            f"choose another place with {option}, or mend its permissions or free space there",
        ) from error
    os.close(descriptor)
    Path(probe).unlink()
