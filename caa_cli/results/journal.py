"""The append-only record of a run: one JSON line an example, safe against a kill at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli.errors import CaaError, UsageError
from caa_cli.paths import sidecar
from caa_cli.results.agreement import disagreements
from caa_cli.results.locks import lock
from caa_cli.results.records import FAILED, SCHEMA_VERSION, Record

R = TypeVar("R", bound=Record)


class Journal(Generic[R]):
    """`<output>.jsonl`: a header line with the configuration, then a line an example, flushed at once."""

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path, self.kind = path, kind
        self._file: Any = None

    @staticmethod
    def beside(output: Path, kind: type[R]) -> Journal[R]:
        return Journal(sidecar(output, ".jsonl"), kind)

    @property
    def begun(self) -> bool:
        """Whether its header is whole: else it was killed at its very beginning, and there is nothing to lose."""
        try:
            return b"\n" in self.path.read_bytes()
        except FileNotFoundError:
            return False

    def reserve(self) -> None:
        """Keeps it for this process alone, until `close`. Raises CaaError while another run writes to it."""
        if self._file is None:
            self._file = lock(self.path, self.path, "--output")

    def start(self, header: dict[str, Any]) -> None:
        """Begins anew, replacing whatever was there. Raises CaaError while another run writes to it."""
        self.reserve()
        self._file.truncate(0)
        self._append([{"schema_version": SCHEMA_VERSION, **header}])

    def resume(self, header: dict[str, Any], compared: list[str]) -> list[R]:
        """Goes on from what is there and returns its examples; failed ones are left out, to be tried again.

        Raises UsageError if the journal belongs to a run with other settings: `compared` names the keys of
        header["config"] that have to agree, and the checkpoint's content has to.
        """
        self.reserve()
        if not self.begun:
            self.start(header)
            return []
        found_header, records, intact = self._read()
        differing = disagreements(found_header, header, compared)
        if differing:
            raise UsageError(
                f"{self.path} belongs to a run with other settings: {', '.join(differing)}",
                "repeat the command with the settings of that run, or choose another --output",
            )
        # A line that a kill cut off goes; what follows is appended where it began.
        self._file.truncate(intact)
        return [record for record in records if record.outcome != FAILED]

    def append(self, *records: R) -> None:
        self._append([record.to_json() for record in records])

    def close(self) -> None:
        """One in which nothing was begun leaves no trace."""
        if self._file is not None:
            if os.fstat(self._file.fileno()).st_size == 0:
                self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Once the document holds it all; before it is closed, so that no other run has begun to write to it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _append(self, entries: Sequence[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries).encode()
        while lines:  # a disk that is nearly full takes a part; the next write then fails
            lines = lines[self._file.write(lines) :]
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
