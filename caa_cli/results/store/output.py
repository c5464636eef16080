"""The files of a run: the journal while it runs, and the document at its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli import __version__
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.agreement import disagreements
from caa_cli.results.documents import KINDS, document_at
from caa_cli.results.records import FAILED, SCHEMA_VERSION, Record
from caa_cli.results.shards.result_file import ResultFile, how_to_go_on, parse_result_file
from caa_cli.results.store.files import check_writable, write_atomically
from caa_cli.results.store.journal import Journal, header_of, unfinished
from caa_cli.results.store.locks import locked
from caa_cli.results.store.ownership import check_intact, check_journals, check_result, check_side_file
from caa_cli.runtime.sharding import Shard

R = TypeVar("R", bound=Record)


@dataclass
class RunOutput(Generic[R]):
    """The files of a run whose examples are records of one `kind`.

    side_files: what it writes beside the result, by option. resume, overwrite: what to do with an earlier run there.
    """

    output: Path
    kind: type[R]
    side_files: Mapping[str, Path | None] = field(default_factory=dict)
    resume: bool = False
    overwrite: bool = False
    header: dict[str, Any] = field(default_factory=dict)
    records: dict[int, R] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.journal = Journal.beside(self.output, self.kind)
        self.source = self.journal.path  # what a resumed run goes on from
        self.held: ResultFile[R] | None = None
        self.compared: list[str] = []

    def check(self, shard: Shard) -> None:
        """Before any work, check that everything can be written and that nothing is in the way."""
        check_writable(self.output, "--output")
        check_journals(self.output)
        document = check_result(self.output)
        record = document or header_of(self.journal.path)
        for option, path in self.side_files.items():
            if path is not None:
                check_writable(path, option)
                check_side_file(option, path, record, self.overwrite)
        if self.resume:
            self.journal.check()
        self._check_unfinished()
        if self.resume and not self.journal.path.exists() and document.get("merged"):
            # Its examples are those of the shards, which go on by themselves.
            raise UsageError(
                f"{self.output} was merged from shards, and what they finished is not beside it: "
                "--resume would begin anew",
                f"{how_to_go_on(document)}; or begin anew with another --output",
            )
        if not self.overwrite and shard.count > 1:
            self._check_shards(shard)

    def _check_unfinished(self) -> None:
        if not self.resume and not self.overwrite and unfinished(self.output, self.kind):
            raise UsageError(
                f"{self.journal.path} holds the finished images of a run that was cut short",
                "add --resume to go on with it, or --overwrite to begin anew",
            )

    def _check_shards(self, shard: Shard) -> None:
        """Raise UsageError where the result of another shard would be replaced."""
        if shard.chosen is not None:
            shard.check_siblings(self.output)
        try:
            held = document_at(self.output)["shard"]
            other = Shard(held["index"], held["count"])
        except (TypeError, KeyError):
            return
        if (other.index, other.count) != (shard.index, shard.count):
            raise UsageError(
                f"{self.output} holds {other}, and this is {shard}",
                "give each shard an --output of its own, or add --overwrite",
            )

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Lock all files of this run meanwhile. Raises CaaError where another run writes to one of them."""
        with ExitStack() as held:
            with self.kept(self.journal.path):
                held.enter_context(locked(self.side_files))
                self.journal.reserve()
                held.callback(self.journal.close)
            yield

    def finished(self, header: dict[str, Any], compared: list[str], indices: Sequence[int]) -> ResultFile[R] | None:
        """The existing result, if it is of this very run and has all that is asked for: then there is nothing to do.

        header: what the document says beside its examples: command, config, checkpoint, shard, environment.
        compared: the settings that have to agree. None where there is work. Raises UsageError where the work would
        destroy a finished result.
        """
        self.header, self.compared = header, compared
        if self.overwrite and not self.resume:
            return None
        self._check_unfinished()  # once more, now that no other run can change it
        document = document_at(self.output)
        differing = disagreements(document, header, compared) if document else []
        begun = self.journal.begun
        if unfinished(self.output, self.kind) or (
            differing and begun and not disagreements(header_of(self.journal.path), header, compared)
        ):
            # The journal leads: a document of other settings gives way, for it was begun with --overwrite.
            with suppress(CaaError):  # a damaged one has nothing that the journal lacks
                self.held = None if differing or not document else parse_result_file(self.output, document, KINDS)
            return None
        if differing:
            raise UsageError(
                f"{self.output} is the result of a run with other settings: {', '.join(differing)}",
                "choose another --output, or add --overwrite to replace it",
            )
        if not document:
            check_intact(self.output)
            return None
        self.held = parse_result_file(self.output, document, KINDS)
        lacking = self._lacking(self.held, indices)
        if not lacking and self.held.status == "complete":
            self.journal.remove()  # a kill may have left it
            return self.held
        if not self.resume:
            raise UsageError(
                f"{self.output} is the result of this run, but {lacking or 'it is ' + self.held.status}",
                "add --resume to go on with it, or --overwrite to begin anew",
            )
        return None

    def _lacking(self, held: ResultFile[R], indices: Sequence[int]) -> str:
        """What is asked for and missing in the result, in words; empty if nothing is."""
        done = {record.index for record in held.records}
        missing = sum(index not in done for index in indices)
        return f"{missing} of the images asked for are not in it" if missing else ""

    def begin(self) -> None:
        """Open the journal, and fill `records` with the finished examples of a resumed run."""
        with self.kept(self.journal.path):
            if not self.resume or not self.journal.begun:
                self.journal.start(self.header)
                self.source = self.output
            else:
                self.records = {record.index: record for record in self.journal.resume(self.header, self.compared)}
            # Of a finished run the document alone is left; and a kill may have come while it was copied.
            held = self.held.records if self.held is not None else ()
            copied = [record for record in held if record.index not in self.records and record.outcome != FAILED]
            self.journal.append(*copied)
            self.records |= {record.index: record for record in copied}

    def add(self, record: R) -> None:
        """Keep an example for good."""
        self.records[record.index] = record
        with self.kept(self.journal.path):
            self.journal.append(record)

    def of(self, indices: Iterable[int]) -> list[R]:
        """The finished ones among these examples, in their order."""
        return [self.records[index] for index in indices if index in self.records]

    def everything(self) -> list[R]:
        """All finished examples by index, also those of an earlier part of the run beyond this --limit."""
        return [self.records[index] for index in sorted(self.records)]

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around the work itself: an error that ends it also names the file of finished examples."""
        try:
            yield
        except CaaError as error:
            if not self.records or "--resume" in (error.hint or ""):
                raise
            where = f"what is finished is kept in {self.journal.path}: go on with --resume"
            raise CaaError(error.problem, f"{error.hint}; {where}" if error.hint else where) from error

    def status(self, interrupted: bool) -> str:
        """The status of the run in its document: complete, partial or interrupted."""
        failed = any(record.outcome == FAILED for record in self.records.values())
        return "interrupted" if interrupted else "partial" if failed else "complete"

    def finish(self, status: str, summary: dict[str, Any], records: list[R]) -> dict[str, Any]:
        """Writes the document and returns it."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "tool_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": status,
            **self.header,
            "examples": [record.to_json() for record in records],
            "summary": summary,
        }
        self.write(document)
        return document

    def write(self, document: dict[str, Any]) -> None:
        content = json.dumps(document, indent=2, allow_nan=False) + "\n"
        with self.kept(self.output):
            write_atomically(self.output, content.encode())

    def close(self, status: str) -> None:
        """At the very end, when all is written: remove the journal of a complete run."""
        if status == "complete":
            self.journal.remove()

    @contextmanager
    def kept(self, path: Path) -> Iterator[None]:
        """Turn an OSError while `path` is written into a CaaError which names the finished examples' file."""
        try:
            yield
        except OSError as error:
            raise CaaError(
                f"can't write {error.filename or path} ({error.strerror or error})",
                f"what is finished is kept in {self.journal.path}: free some space and repeat the command "
                "with --resume",
            ) from error
