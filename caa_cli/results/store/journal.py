"""The append-only journal of a run: one JSON line for each example, safe against a kill at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli.config.paths import JOURNAL, sidecar
from caa_cli.config.schema import SchemaError, parse
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.agreement import disagreements
from caa_cli.results.documents import check_header, check_version, read_record
from caa_cli.results.records import FAILED, SCHEMA_VERSION, Record
from caa_cli.results.store.files import discard, read_object
from caa_cli.results.store.locks import is_at, lock

R = TypeVar("R", bound=Record)


class Journal(Generic[R]):
    """`<output>.jsonl`: a header line with the configuration, then one line for each example, synced at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._finished: set[int] = set()  # the images that it has a result of

    @property
    def begun(self) -> bool:
        """Whether the header is complete; if not, the run was killed at its start and has nothing to lose."""
        try:
            with self.path.open("rb") as file:
                return file.readline().endswith(b"\n")
        except FileNotFoundError:
            return False

    def reserve(self) -> None:
        """Lock the journal for this process until `close`. Raises CaaError while another run writes to it."""
        if self._file is None:
            self._file = lock(self.path, self.path, "--output")

    def start(self, header: dict[str, Any]) -> None:
        """Begin anew, discarding earlier content. Raises CaaError while another run writes to it."""
        self.reserve()
        self._file.truncate(0)
        self._finished = set()
        self._append([{"schema_version": SCHEMA_VERSION, **header}])

    def resume(self, header: dict[str, Any], compared: list[str]) -> list[R]:
        """Prepare for appending and return the examples so far, without failed ones, which are tried again.

        Raises UsageError if the journal belongs to a run with other settings: `compared` names the keys of
        header["config"] that have to agree, and the checkpoint's content has to.
        """
        self.reserve()
        if not self.begun:
            self.start(header)
            return []
        found_header, records, intact = read_journal(self.path)
        if not records:  # a run that was killed before its first image, with whatever settings
            self.start(header)
            return []
        differing = disagreements(found_header, header, compared)
        if differing:
            raise UsageError(
                f"{self.path} belongs to a run with other settings: {', '.join(differing)}",
                "repeat the command with the settings of that run, or choose another --output",
            )
        # Drop a line that a kill cut off.
        self._file.truncate(intact)
        finished = [record for record in records.values() if record.outcome != FAILED]
        self._finished = {record.index for record in finished}
        return finished

    def check(self) -> None:
        """Raises CaaError for a journal that is damaged, so that no --resume could use it."""
        if self.begun:
            read_journal(self.path)

    def append(self, *records: R) -> None:
        """Append examples. A repeated one is marked `again`, to tell it from damage."""
        again = {"again": True}
        self._append([{**r.to_json(), **(again if r.index in self._finished else {})} for r in records])
        self._finished |= {record.index for record in records if record.outcome != FAILED}

    @property
    def is_lost(self) -> bool:
        """Whether the file that this process writes to was removed or moved, so that nobody would find it."""
        return not is_at(self._file, self.path)

    def close(self) -> None:
        """Unlock the journal, and remove it where it is empty."""
        if self._file is not None:
            if os.fstat(self._file.fileno()).st_size == 0:
                discard(self.path)
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Remove the journal once the document is complete; before unlocking, so that no other run uses it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _append(self, entries: Sequence[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries).encode()
        while lines:  # a disk that is nearly full takes a part; the next write then fails
            lines = lines[self._file.write(lines) :]
        os.fsync(self._file.fileno())


def read_journal(path: Path) -> tuple[dict[str, Any], dict[int, Any], int]:
    """Read and check a journal: (header, records by index, length in bytes of the intact part).

    A last line that a kill cut off is ignored. An image may occur again after a failure, or when it was attacked
    again to keep its adversarial image.

    Raises CaaError where there is no whole line, and for a file that is damaged, no journal, or of another schema.
    """
    content = path.read_bytes()
    intact = content.rfind(b"\n") + 1
    lines = content[:intact].split(b"\n")
    number, records, seen = 1, dict[int, Any](), dict[int, int]()
    try:
        header = parse(_text(lines[0]))
        if isinstance(header, dict):
            check_version(path, header)
        check_header(header)
        for number, line in enumerate(lines[1:-1], 2):
            entry = parse(_text(line))
            record = read_record(entry, header)
            held = records.get(record.index)
            if held is not None and held.outcome != FAILED and not (entry.get("again") or _agree(held, record)):
                raise SchemaError(
                    f"is on line {seen[record.index]} already, with another result", f"image {record.index}"
                )
            records[record.index], seen[record.index] = record, number
    except SchemaError as error:
        raise CaaError(
            f"{path} is no record of a run, or it is damaged (line {number}: {error})",
            "mend or delete that line, move the file away, or choose another --output",
        ) from error
    return header, records, intact


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise SchemaError("is no text", "it") from error


def _agree(one: Record, other: Record) -> bool:
    """Whether two records agree but for the time."""
    return {**one.to_json(), "seconds": None} == {**other.to_json(), "seconds": None}


def unfinished(output: Path) -> bool:
    """Whether the journal holds examples of an earlier run that no complete result holds."""
    journal = Journal[Any](sidecar(output, JOURNAL))
    try:
        if not journal.begun:
            return False
    except OSError:  # no file can have this name
        return False
    try:
        _, records, _ = read_journal(journal.path)
        document = read_object(output)
        if not records and not document:
            return False
        held = {example["index"]: example for example in document["examples"]}
        return document["status"] != "complete" or any(held.get(i) != r.to_json() for i, r in records.items())
    except (CaaError, OSError, TypeError, KeyError):
        return True


def header_of(path: Path) -> dict[str, Any]:
    """The header of the journal at `path`; empty where it is missing or damaged."""
    try:
        with path.open("rb") as file:
            header = parse(_text(file.readline()))
        check_header(header)
    except (OSError, SchemaError):
        return {}
    return dict(header)
