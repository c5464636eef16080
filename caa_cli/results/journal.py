"""The append-only record of a run: one JSON line an example, safe against a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli.errors import CaaError, UsageError
from caa_cli.plan import differences
from caa_cli.results.records import FAILED, SCHEMA_VERSION, Record

R = TypeVar("R", bound=Record)


class Journal(Generic[R]):
    """`<output>.jsonl`: a header line with the configuration, then a line an example, flushed at once."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path, self.kind = path, kind
        self._file: Any = None

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
        differing = differences(found_header.get("config", {}), header["config"], compared)
        if found_header.get("checkpoint", {}).get("sha256") != header["checkpoint"]["sha256"]:
            differing.insert(0, "checkpoint content")
        if _surrogate(found_header) != _surrogate(header):
            differing.insert(0, "the surrogate's checkpoint content")
        if found_header.get("images", header.get("images")) != header.get("images"):
            differing.insert(0, "the data set's files, so that an index means another image")
        if found_header.get("command") != header["command"]:
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
        return [record for record in records if record.outcome != FAILED]

    def append(self, record: R) -> None:
        self._append(record.to_json())

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
        """(header, records, length in bytes of the intact part)."""
        content = self.path.read_bytes()
        intact = content.rfind(b"\n") + 1
        lines = content[:intact].splitlines()
        try:
            header, *entries = [json.loads(line) for line in lines]
            if not isinstance(header, dict) or not isinstance(header.get("config", {}), dict):
                raise ValueError("its first line is no header")
            records = {entry["index"]: self.kind.from_json(entry) for entry in entries}
        except (ValueError, TypeError, KeyError) as error:
            raise CaaError(
                f"{self.path} is no record of a run, or it is damaged ({error})",
                "move it away, or choose another --output",
            ) from error
        if header.get("schema_version") != SCHEMA_VERSION:
            raise CaaError(
                f"{self.path} was written in schema {header.get('schema_version')}, this is {SCHEMA_VERSION}",
                "finish it with the version of caa that began it, or choose another --output",
            )
        return header, list(records.values()), intact


def _surrogate(header: dict[str, Any]) -> Any:
    """The digest of the checkpoint that gradients come from, where it is not the target's own."""
    return (header.get("surrogate_model") or {}).get("sha256")


def _shard(header: dict[str, Any]) -> str:
    found = header.get("shard", {})
    return f"{found.get('index', 0)}/{found.get('count', 1)}"


def unfinished(output: Path, kind: type[R]) -> bool:
    """Whether an earlier run to this output left examples behind that no complete result holds."""
    journal = Journal.beside(output, kind)
    if not journal.path.exists() or journal.path.stat().st_size == 0:
        return False
    try:
        document = json.loads(output.read_text(encoding="utf-8"))
        held = {example["index"]: example for example in document["examples"]}
        _, records, _ = journal._read()
        return document["status"] != "complete" or any(held.get(r.index) != r.to_json() for r in records)
    except (CaaError, OSError, ValueError, TypeError, KeyError):
        return True


def header_of(path: Path) -> dict[str, Any]:
    """The first line of the record there; nothing where it is none."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("config"), dict) else {}
