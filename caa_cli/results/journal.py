"""The append-only record of a run: one JSON line an example, safe against a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli.errors import CaaError, UsageError
from caa_cli.plan import differences
from caa_cli.results.documents import check_header, check_version, read_record
from caa_cli.results.files import read_object
from caa_cli.results.records import FAILED, SCHEMA_VERSION, Record
from caa_cli.results.schema import SchemaError, parse

R = TypeVar("R", bound=Record)


class Journal(Generic[R]):
    """`<output>.jsonl`: a header line with the configuration, then a line an example, flushed at once."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path, self.kind = path, kind
        self._file: Any = None
        self._finished: set[int] = set()

    @staticmethod
    def beside(output: Path, kind: type[R]) -> Journal[R]:
        return Journal(output.with_name(output.name + ".jsonl"), kind)

    def start(self, header: dict[str, Any]) -> None:
        """Begins anew, replacing whatever was there. Raises CaaError while another run writes to it."""
        self._open(0)
        self._append({"schema_version": SCHEMA_VERSION, **header})

    def resume(self, header: dict[str, Any], compared: list[str]) -> list[R]:
        """Goes on from what is there and returns its examples; failed ones are left out, to be tried again.

        Raises UsageError if the journal belongs to a run with other settings: `compared` names the keys of
        header["config"] that have to agree, and the checkpoint's content has to.
        """
        if b"\n" not in self.path.read_bytes():
            # Killed before the header was whole: there is nothing to lose.
            self.start(header)
            return []
        found_header, records, intact = self._read()
        differing = differences(found_header["config"], header["config"], compared)
        if found_header["checkpoint"]["sha256"] != header["checkpoint"]["sha256"]:
            differing.insert(0, "checkpoint content")
        if _surrogate(found_header) != _surrogate(header):
            differing.insert(0, "the surrogate's checkpoint content")
        if found_header.get("images", header.get("images")) != header.get("images"):
            differing.insert(0, "the data set's files, so that an index means another image")
        if found_header["command"] != header["command"]:
            differing.insert(0, "command")
        ours, theirs = _shard(header), _shard(found_header)
        if ours != "0/1":  # it would hold images that are another shard's to deliver
            differing += differences({"shard": theirs}, {"shard": ours}, ["shard"])
        if differing:
            raise UsageError(
                f"{self.path} belongs to a run with other settings: {', '.join(differing)}",
                "repeat the command with the settings of that run, or choose another --output",
            )
        # A line that a kill cut off goes; what follows is appended where it began.
        self._open(intact)
        finished = [record for record in records if record.outcome != FAILED]
        self._finished = {record.index for record in finished}
        return finished

    def check(self) -> None:
        """Raises CaaError for a journal that --resume could not go on with, whatever the settings."""
        if self.path.exists() and b"\n" in self.path.read_bytes():
            self._read()

    def append(self, record: R) -> None:
        """An image that was finished before is marked, so that it is not taken for damage."""
        again = {"again": True} if record.index in self._finished else {}
        self._append({**record.to_json(), **again})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, keep: int) -> None:
        """For appending after the first `keep` bytes, and for this process alone."""
        file = self.path.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise CaaError(
                f"another run is writing to {self.path}", "wait for it to end, or choose another --output"
            ) from error
        except OSError:
            pass  # a file system without locks
        if os.fstat(file.fileno()).st_size > keep:
            file.truncate(keep)
        self._file = file

    def _append(self, entry: dict[str, Any]) -> None:
        line = (json.dumps(entry, allow_nan=False) + "\n").encode()
        while line:  # a disk that is nearly full takes a part; the next write then fails
            line = line[self._file.write(line) :]
        os.fsync(self._file.fileno())

    def _read(self) -> tuple[dict[str, Any], list[R], int]:
        header, records, intact = read_journal(self.path)
        return header, list(records.values()), intact


def read_journal(path: Path) -> tuple[dict[str, Any], dict[int, Any], int]:
    """(header, records by index, length in bytes of the intact part), all of it checked.

    The line that a kill cut off does not count. An image that failed may be there once more, and so may one that was
    attacked again for its picture.

    Raises CaaError where there is no whole line, and for a file that is damaged, no journal, or of another schema.
    """
    content = path.read_bytes()
    intact = content.rfind(b"\n") + 1
    lines = content[:intact].split(b"\n")[:-1]
    number, records, seen = 1, dict[int, Any](), dict[int, int]()
    try:
        header = parse(_text(lines[0]))
        if isinstance(header, dict):
            check_version(path, header)
        check_header(header)
        for number, line in enumerate(lines[1:], 2):
            entry = parse(_text(line))
            record = read_record(entry, header)
            held = records.get(record.index)
            if held is not None and held.outcome != FAILED and not (entry.get("again") or _alike(held, record)):
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


def _alike(one: Record, other: Record) -> bool:
    """Whether it is the same result, however long it took."""
    return {**one.to_json(), "seconds": None} == {**other.to_json(), "seconds": None}


def _surrogate(header: dict[str, Any]) -> Any:
    """The digest of the checkpoint that gradients come from, where it is not the target's own."""
    return (header.get("surrogate_model") or {}).get("sha256")


def _shard(header: dict[str, Any]) -> str:
    found = header.get("shard") or {"index": 0, "count": 1}
    return f"{found['index']}/{found['count']}"


def unfinished(output: Path, kind: type[R]) -> bool:
    """Whether an earlier run to this output left examples behind that no complete result holds."""
    journal = Journal.beside(output, kind)
    if not journal.path.exists() or journal.path.stat().st_size == 0:
        return False
    try:
        document = read_object(output)
        held = {example["index"]: example for example in document["examples"]}
        _, records, _ = journal._read()
        return document["status"] != "complete" or any(held.get(r.index) != r.to_json() for r in records)
    except (CaaError, OSError, TypeError, KeyError):
        return True


def header_of(path: Path) -> dict[str, Any]:
    """The first line of the record there; nothing where it is none."""
    try:
        with path.open("rb") as file:
            header = parse(_text(file.readline()))
        check_header(header)
    except (OSError, SchemaError):
        return {}
    return dict(header)
