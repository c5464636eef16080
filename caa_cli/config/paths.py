"""Files named on a command line: whether there is one, whether two are the same, and where one is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from caa_cli.errors import UsageError


def exists(path: Path) -> bool:
    """Whether there is something. Raises OSError where nobody can tell; Python 3.14's Path.exists says no there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def behind_link(path: Path) -> Path:
    """The path to write to: that of the file which a symbolic link points to, so that the link stays."""
    # Path.is_symlink raises for a name that is too long.
    return Path(os.path.realpath(path)) if os.path.islink(path) else path  # noqa: PTH114


def sidecar(path: Path, suffix: str) -> Path:
    """The path of a file that a run keeps beside `path` while it works: attack.json.jsonl."""
    target = behind_link(path)
    return target.with_name(target.name + suffix)


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths, which need not exist, are the same file, links resolved."""
    return not _identities(one).isdisjoint(_identities(other))


# What a run keeps beside its output: its journal, and the adversarial images.
JOURNAL, IMAGES = ".jsonl", ".images"
# What a training keeps there: its state, and a log with a line for each epoch.
TRAINING, TRAINING_LOG = ".training", ".log.jsonl"

Named = Iterable[tuple[str, Path | None]]


def check_distinct(reads: Named, writes: Named) -> None:
    """Raises UsageError, which names both, where a file to write is also read, or written twice.

    Each path comes with what it is: an option, or words such as `the record of --output`.
    """
    taken: dict[object, str] = {}
    for what, path in reads:
        taken |= dict.fromkeys(_identities(path), f"{what} {path}") if path is not None else {}
    for what, path in writes:
        identities = _identities(path) if path is not None else set()
        for identity in identities & taken.keys():
            raise UsageError(f"{what} {path} is the same file as {taken[identity]}", "give one of them another name")
        taken |= dict.fromkeys(identities, f"{what} {path}")


def _identities(path: Path) -> set[object]:
    """The path with links resolved and, if the file exists, its device and inode, which hard links share."""
    identities: set[object] = {os.path.realpath(path)}
    try:
        status = path.stat()
    except (OSError, ValueError):
        return identities
    return {*identities, (status.st_dev, status.st_ino)}
