"""Which files caa wrote: no output ever replaces a file of another origin, not even with --overwrite.

Results and journals are recognised by their content; saved images, pictures and pages by a mark. Logs in Cohen's
format and some picture formats have no room for a mark: they are recognised by the result that names them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caa_cli.config.paths import IMAGES, JOURNAL, same_file, sidecar
from caa_cli.config.ranges import setting_of
from caa_cli.errors import UsageError
from caa_cli.results.certificates import COHEN_COLUMNS
from caa_cli.results.documents import document_at
from caa_cli.results.store.files import check_writable
from caa_cli.results.store.images import ImageJournal, saved_metadata

_MARK = re.compile(rb"made by caa(?: \(([0-9a-f]{16})\))?")
_HEADER = b'{"schema_version"'
# What `foreign_file` calls the files of these options; those of all others are pictures.
_KINDS = {
    "--save-adversarial": "a file of adversarial images",
    "--tsv": "such a file of this run",
    "--html": "a page",
}


def mark(fingerprint: str = "") -> str:
    """The mark in a picture or a page. fingerprint: of the comparison that it shows."""
    return f"made by caa ({fingerprint})" if fingerprint else "made by caa"


def marked(path: Path) -> str | None:
    """The fingerprint in a file's mark; empty for a mark without one, None for a file without a mark."""
    content = path.read_bytes()
    match = _MARK.search(content[:8192]) or _MARK.search(content[-65536:])  # a PDF has it near its end
    return None if match is None else (match[1] or b"").decode()


def check_result(path: Path) -> dict[str, Any]:
    """Read the result at --output; empty where there is none. Raises UsageError for a file that caa did not write."""
    if something_at(path) and not _begins_as_result(path):
        raise foreign_file("--output", path, "a result")
    return document_at(path)


def check_intact(path: Path) -> None:
    """Raises UsageError where a file is there although `document_at` found no result: it is a damaged one."""
    if something_at(path):
        raise UsageError(
            f"{path} is a result that was cut off or damaged", "add --overwrite to begin anew, or move it away"
        )


def check_journals(output: Path) -> None:
    """Raises UsageError where the journal or the images of a run would replace another kind of file."""
    journal, images = sidecar(output, JOURNAL), sidecar(output, IMAGES)
    for path in (journal, images):
        check_writable(path, "--output")
    if something_at(journal):
        with journal.open("rb") as file:
            head = file.read(len(_HEADER))
        if not _HEADER.startswith(head):  # a kill may have cut it off
            raise foreign_file("--output", journal, "the record of a run")
    if something_at(images) and not ImageJournal.is_one(images):
        raise foreign_file("--output", images, "the images of a run")


def check_side_files(files: Mapping[str, Path | None], record: dict[str, Any], overwrite: bool) -> None:
    """Raises CaaError where one of these files, by option, can't be written or must not be replaced.

    record: the document or the journal's header at --output; files that it names may be replaced.
    """
    for option, path in files.items():
        if path is not None:
            check_writable(path, option)
            if something_at(path):
                _check_replaceable(option, path, record, overwrite)


def _check_replaceable(option: str, path: Path, record: dict[str, Any], overwrite: bool) -> None:
    if option == "--save-adversarial":
        replaceable = saved_metadata(path).get("fingerprint") is not None
    elif option == "--tsv":
        replaceable = is_named_by(record, option, path) and path.read_bytes().startswith(COHEN_COLUMNS.encode())
    else:
        replaceable = marked(path) is not None or is_named_by(record, option, path)
    if not replaceable:
        raise foreign_file(option, path, _KINDS.get(option, "a picture"))
    if not overwrite and not is_named_by(record, option, path):
        raise another_run(option, path)


def is_named_by(record: dict[str, Any], option: str, path: Path) -> bool:
    """Whether a document or a journal's header names this file as an output of its run."""
    config = record.get("config")
    place = config.get(setting_of(option)) if isinstance(config, dict) else None
    return isinstance(place, str) and same_file(Path(place), path)


def another_run(option: str, path: Path) -> UsageError:
    """The error for a file of caa that only --overwrite may replace."""
    return UsageError(
        f"{option} {path} is there already, and of another run",
        f"name another file with {option}, or add --overwrite",
    )


def foreign_file(option: str, path: Path, what: str) -> UsageError:
    """The error for a file that caa never replaces. what: the kind of file that it would replace."""
    return UsageError(
        f"{path} is in the way of {option}: it is not {what} that caa wrote, so it is not replaced",
        f"name another file with {option}, or move that one away",
    )


def _begins_as_result(path: Path) -> bool:
    """Whether a file begins as a result does; the rest may have been cut off, by a copy for instance."""
    with path.open("rb") as file:
        return re.match(rb'\{\s*"schema_version"\s*:', file.read(100)) is not None


def something_at(path: Path) -> bool:
    """Whether there is a file that is not empty."""
    return path.exists() and path.stat().st_size > 0
