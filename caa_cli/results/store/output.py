"""The output of a run: the journal while it works, and the document at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from caa_cli.config.paths import JOURNAL, sidecar
from caa_cli.errors import CaaError, UsageError
from caa_cli.results.agreement import disagreements
from caa_cli.results.class_names import names_of_classes
from caa_cli.results.documents import KINDS, document_at, head, shard_of
from caa_cli.results.records import FAILED, Record
from caa_cli.results.shards.result_file import ResultFile, how_to_go_on, parse_result_file
from caa_cli.results.store.files import REPEAT, check_writable, write_document, writing
from caa_cli.results.store.journal import Journal, header_of, unfinished
from caa_cli.results.store.locks import check_free, locked
from caa_cli.results.store.ownership import check_intact, check_journals, check_result, check_side_files
from caa_cli.runtime.sharding import Shard
from caa_cli.runtime.signals import uninterrupted

R = TypeVar("R", bound=Record)


class RunOutput(Generic[R]):
    """The files of a run.

    side_files: further files that it writes, by option.  resume, overwrite: what to do with an earlier run's output.
    header, compared, indices: see `load_finished`.  records: the finished examples.  held: an earlier result.
    """

    def __init__(
        self, output: Path, side_files: Mapping[str, Path | None], resume: bool = False, overwrite: bool = False
    ) -> None:
        self.output, self.side_files, self.resume, self.overwrite = output, side_files, resume, overwrite
        self.journal = Journal[R](sidecar(output, JOURNAL))
        self.source = self.journal.path  # where a resumed run's examples come from
        self.header: dict[str, Any] = {}
        self.compared: list[str] = []
        self.indices: Sequence[int] = ()
        self.records: dict[int, R] = {}
        self.held: ResultFile[R] | None = None

    def check(self, shard: Shard) -> None:
        """Check before any work that every file can be written and replaces nothing. Raises CaaError."""
        check_writable(self.output, "--output")
        check_free(self.journal.path, "--output")  # before its journal is taken for one of a run that was cut short
        check_journals(self.output)
        document = check_result(self.output)
        check_side_files(self.side_files, document or header_of(self.journal.path), self.overwrite)
        if self.resume:
            self.journal.check()
        self._check_unfinished()
        unfinished_shards = document.get("merged") and document["status"] != "complete"
        if (self.resume or not self.overwrite) and not self.journal.path.exists() and unfinished_shards:
            # Its examples are those of the shards, which go on by themselves.
            raise UsageError(
                f"{self.output} was merged from shards and is {document['status']}: only they can go on",
                f"{how_to_go_on(document)}; or begin anew with another --output",
            )
        if not self.overwrite and shard.count > 1:
            self._check_shards(shard, document)

    def _check_unfinished(self) -> None:
        if not self.resume and not self.overwrite and unfinished(self.output):
            raise UsageError(
                f"{self.journal.path} holds the finished images of a run that was cut short",
                "add --resume to go on with it, or --overwrite to begin anew",
            )

    def _check_shards(self, shard: Shard, document: dict[str, Any]) -> None:
        """Raises UsageError where this shard's result would replace the document, which is another shard's."""
        if shard.chosen is not None:
            shard.check_siblings(self.output)
        if document.get("command") in KINDS and shard_of(document) != (shard.index, shard.count):
            raise UsageError(
                f"{self.output} holds {Shard(*shard_of(document))}, and this is {shard}",
                "give each shard an --output of its own, or add --overwrite",
            )

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """A context in which no other run can write to these files. Raises CaaError where one is writing."""
        with ExitStack() as held:
            with self.writing(self.journal.path):
                held.enter_context(locked(self.side_files))
                self.journal.reserve()
                held.callback(self.journal.close)
            yield

    def load_finished(
        self, header: dict[str, Any], compared: list[str], indices: Sequence[int]
    ) -> ResultFile[R] | None:
        """The result that is there, if it is of this very run and has all that is asked for: nothing is to be done.

        header: what the document says beside its examples: command, config, checkpoint, shard, environment.
        compared: the settings that have to agree. None where there is work. Raises UsageError where the work would
        destroy a finished result.
        """
        self.header, self.compared, self.indices = header, compared, indices
        if self.overwrite and not self.resume:
            return None
        self._check_unfinished()  # again, now that no other run can change it
        document = document_at(self.output)
        differing = disagreements(document, header, compared) if document else []
        begun = self.journal.begun
        if unfinished(self.output) or (
            differing and begun and not disagreements(header_of(self.journal.path), header, compared)
        ):
            # The journal leads: a document of other settings gives way, for it was begun with --overwrite.
            with suppress(CaaError):  # a damaged one has nothing that the journal lacks
                self.held = None if differing or not document else parse_result_file(self.output, document, KINDS)
            return None
        if self.overwrite and (differing or not document):
            return None  # --resume has nothing to go on with
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
            self.close("complete")  # a kill may have left what a complete run removes
            return self.held
        if not self.resume:
            raise UsageError(
                f"{self.output} is the result of this run, but {lacking or 'it is ' + self.held.status}",
                "add --resume to go on with it, or --overwrite to begin anew",
            )
        return None

    def _lacking(self, held: ResultFile[R], indices: Sequence[int]) -> str:
        """What is asked for but missing in the result, in words; empty for nothing."""
        done = {record.index for record in held.records}
        missing = sum(index not in done for index in indices)
        return f"it lacks {missing} of the images asked for" if missing else ""

    def begin(self) -> None:
        """Open the journal, and fill `records` with the finished examples of a resumed run."""
        with self.writing(self.journal.path):
            if not self.resume or not self.journal.begun:
                self.journal.start(self.header)
                self.source = self.output
            else:
                self.records = {record.index: record for record in self.journal.resume(self.header, self.compared)}
            # A finished run has left only its document, and a kill may have interrupted copying it to the journal.
            held = self.held.records if self.held is not None else ()
            copied = [record for record in held if record.index not in self.records and record.outcome != FAILED]
            self.journal.append(*copied)
            self.records |= {record.index: record for record in copied}

    def add(self, record: R) -> None:
        """Add an example to the journal and to `records`: to both, also if a signal comes meanwhile."""
        with uninterrupted(), self.writing(self.journal.path):
            if self.journal.is_lost:  # written anew, unless another run has the name by now
                self.journal.close()
                self.journal.start(self.header)
                self.journal.append(*self.records.values())
            self.journal.append(record)
            self.records[record.index] = record

    def of(self, indices: Iterable[int]) -> list[R]:
        """The records of those of these examples that are finished, in the given order."""
        return [self.records[index] for index in indices if index in self.records]

    def everything(self) -> list[R]:
        """All records in the order of the indices, with those of an earlier part of the run beyond this --limit."""
        return [self.records[index] for index in sorted(self.records)]

    @contextmanager
    def working(self) -> Iterator[None]:
        """A context for the work, in which the hint of an error names where the finished examples are kept."""
        try:
            yield
        except CaaError as error:
            if not self.records or "--resume" in (error.hint or ""):
                raise
            raise error.with_advice(self._advice("go on with --resume")) from error

    def status(self, interrupted: bool) -> str:
        """The status of the run: `complete`, `partial` or `interrupted`."""
        failed = any(record.outcome == FAILED for record in self.records.values())
        return "interrupted" if interrupted else "partial" if failed else "complete"

    def finish(
        self, status: str, summary: dict[str, Any], records: list[R], class_names: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Write the document and return it. class_names: by class, empty where there are none."""
        document = {
            **head(self.header["command"], status),
            **self.header,
            "class_names": names_of_classes(records, class_names),
            "examples": [record.to_json() for record in records],
            "summary": summary,
        }
        self.write(document)
        return document

    def write(self, document: dict[str, Any]) -> None:
        with self.writing(self.output):
            write_document(self.output, document)

    def close(self, status: str) -> None:
        """Remove what only a run that is cut short needs, of a complete one, once everything is written."""
        if status == "complete":
            self.journal.remove()

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """A context in which a failure to write `path` raises a CaaError that says what is kept."""
        try:
            yield
        except OSError:
            with writing(path, self._advice(REPEAT)):
                raise

    def _advice(self, next_step: str) -> str:
        """Where the finished examples are, and what to do next."""
        journal = self.journal.path
        if self.records and not journal.exists():
            return f"{journal}, with what is finished, was removed or moved: bring it back, and go on with --resume"
        return f"what is finished is kept in {journal}: {next_step}"
