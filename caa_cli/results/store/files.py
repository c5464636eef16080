"""Writing files atomically, and checking beforehand that they can be written."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from caa_cli.config.paths import behind_link
from caa_cli.errors import CaaError

# What to do where a file can't be written, and what is finished can be gone on with.
REPEAT = "free some space and repeat the command with --resume"
# The ending of files that are being written.
_TEMPORARY = ".tmp"


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a temporary file in the same folder, sync it and rename it. Raises OSError and leaves `path` unchanged.

    For a symbolic link the file that it points to is replaced.  content: whole, or in pieces where it is large.
    Temporary files that writes of `path` left when they were killed are removed.
    """
    path = behind_link(path)
    _remove_abandoned(path)
    descriptor, temporary = _temporary_beside(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with suppress(OSError):  # a file system without locks, where none is taken for abandoned
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for piece in [content] if isinstance(content, bytes) else content:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            # mkstemp makes private files; a result is as readable as any other file of the user's.
            umask = os.umask(0)
            os.umask(umask)
            Path(temporary).chmod(0o666 & ~umask)
            Path(temporary).replace(path)
        _sync_folder(path.parent)
    except BaseException:
        discard(Path(temporary))
        raise


def discard(path: Path) -> None:
    """Remove a file that does no harm where that fails: no error takes the place of one that is under way."""
    with suppress(OSError):
        path.unlink()


def _temporary_beside(path: Path) -> tuple[int, str]:
    return tempfile.mkstemp(prefix=f".{path.name}.", suffix=_TEMPORARY, dir=path.parent)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of earlier writes of `path`, but for those that a process still has locked."""
    for left in path.parent.glob(f".{escape(path.name)}.{'[a-z0-9_]' * 8}{_TEMPORARY}"):
        with suppress(OSError), left.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _sync_folder(folder: Path) -> None:
    """Sync the folder, so that the rename reaches the disk before a journal is removed."""
    with suppress(OSError):  # a folder that can't be read, or a file system that syncs none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty where the file is missing, damaged or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Write strict JSON for people to read. Raises OSError, and ValueError for NaN."""
    write_atomically(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def writing(path: Path, hint: str) -> Iterator[None]:
    """A context that turns an OSError into a CaaError about `path`. hint: what is not lost."""
    try:
        yield
    except OSError as error:
        raise CaaError(f"can't write {error.filename or path} ({error.strerror or error})", hint) from error


def _is_stream(path: Path) -> bool:
    """Whether the path is an open stream of a process such as /dev/stdout: links that lead into /proc."""
    for _ in range(40):  # as many links as Linux follows
        folder = os.path.realpath(path.parent)
        if folder == "/dev/fd" or f"{folder}/".startswith("/proc/"):
            return True
        path = Path(folder, path.name)
        try:
            path = Path(folder, path.readlink())
        except OSError:  # no link
            return False
    return False


def check_writable(path: Path, option: str) -> None:
    """Raises CaaError where `path` can't be written, so that a run fails before its work."""
    if _is_stream(path):
        hint = "--json writes the document to stdout" if option == "--output" else f"name a file with {option}"
        raise CaaError(f"{option} {path} is a stream, not a file", hint)
    path = behind_link(path)
    try:
        mode = path.lstat().st_mode
    except OSError:
        mode = stat.S_IFREG  # not there yet, or its folder can't be used, which shows below
    if stat.S_ISDIR(mode):
        raise CaaError(f"{option} {path} is a folder", f"name a file in it: {option} {path / 'NAME'}")
    if not stat.S_ISREG(mode):
        # Renaming over it would destroy a device, a pipe, or a link that leads back to itself.
        raise CaaError(f"{option} {path} is no regular file", f"name another with {option}")
    folder = path.parent
    if not folder.is_dir():
        if folder.exists():
            raise CaaError(f"{option} {path}: {folder} is no folder", f"name a file in another folder with {option}")
        command = shlex.join(["mkdir", "-p", str(folder)])
        raise CaaError(f"the folder of {option} {path} does not exist", f"create it first: {command}")
    try:
        descriptor, probe = _temporary_beside(path)
    except OSError as error:
        raise CaaError(
            f"can't write in {folder.resolve()} ({error.strerror})",
            f"choose another place with {option}, or mend its permissions or free space there",
        ) from error
    os.close(descriptor)
    Path(probe).unlink()
