"""`caa merge` from the shards' files to one result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caa_cli.config.paths import JOURNAL, check_distinct, sidecar
from caa_cli.config.ranges import SAFETENSORS, FileName, setting_of
from caa_cli.display import Display
from caa_cli.errors import DONE, PARTIAL, UsageError
from caa_cli.results.agreement import disagreements
from caa_cli.results.certificates import cohen_log
from caa_cli.results.documents import KINDS, document_at
from caa_cli.results.fields import Fields
from caa_cli.results.records import FAILED
from caa_cli.results.requirements import Requirement
from caa_cli.results.shards.merged_result import NOT_COMPARED, Merged, merge, merged_images, read_shard
from caa_cli.results.shards.result_file import how_to_go_on, parse_result_file
from caa_cli.results.store.files import check_writable, write_atomically, write_document, writing
from caa_cli.results.store.images import save_images
from caa_cli.results.store.journal import unfinished
from caa_cli.results.store.locks import check_free, locked
from caa_cli.results.store.ownership import check_intact, check_result, check_side_files
from caa_cli.run.gate import Gate, warn_of_nothing
from caa_cli.run.reporting import file_rows, rows_and_fields
from caa_cli.runtime.signals import uninterrupted

_ADVICE = "the shards' own results are kept: free some space and repeat the command"


@dataclass
class MergeRun:
    """side_files: further files to write, by option. partial: join what is there, although something is missing.

    overwrite: another result at `output` may be replaced.
    """

    display: Display
    shards: tuple[Path, ...]
    output: Path
    side_files: dict[str, Path] = field(default_factory=dict)
    partial: bool = False
    dry_run: bool = False
    requirements: Sequence[Requirement] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        self.gate = Gate(self.display, self.requirements)
        self.written = {"--output": self.output, **self.side_files}

    def execute(self) -> int:
        """Run it; returns the exit code. Raises CaaError for whatever the user can mend."""
        self._check_files()
        parts = [read_shard(path, self.partial) for path in self.shards]
        if not any(parts):
            raise UsageError("there is nothing to merge: no shard has finished an image", "run them with --resume")
        merged = merge([part for part in parts if part is not None], self.partial)
        for option, command in (("--save-adversarial", "attack"), ("--tsv", "certify")):
            if option in self.side_files and merged.command != command:
                raise UsageError(
                    f"{option} is of caa {command}, and these are shards of caa {merged.command}", "leave it out"
                )
        rows, fields = rows_and_fields(merged.summary, merged.records, merged.parts[0].config.get("radius"))
        self.gate.check(fields)
        for gap in merged.gaps:
            self.display.warn(gap)
        self._warn_of_failures(merged)
        if self.dry_run:
            self.display.document(merged.to_json({"output": str(self.output)}))
        else:
            self._write(merged, fields)
        where = [] if self.dry_run else file_rows(self.output, self.side_files)
        self.display.result("the shards together", [*rows, *where])
        warn_of_nothing(self.display, fields)
        return self.gate.exit_code(DONE if merged.status == "complete" else PARTIAL)

    def _warn_of_failures(self, merged: Merged) -> None:
        failed = [(record, part) for part in merged.parts for record in part.records if record.outcome == FAILED]
        if failed:
            record, part = min(failed, key=lambda failure: failure[0].index)
            self.display.warn(
                f"{len(failed)} of the images failed; the first is {record.index} of {part.path}: {record.error}"
            )
            self.display.warn(f"to try again, {how_to_go_on(part.metadata)}")

    def _check_files(self) -> None:
        for option, path in self.written.items():
            (SAFETENSORS if option == "--save-adversarial" else FileName()).check(option, path)
        for path in self.shards:
            if path.is_dir():
                again = f"caa merge {path / '*.json'} --output {self.output}"
                raise UsageError(f"{path} is a folder", f"name the results in it, those of one run: {again}")
        read = [*self.shards, *(sidecar(path, JOURNAL) for path in self.shards)]
        check_distinct([("a shard to read,", path) for path in read], self.written.items())
        check_free(sidecar(self.output, JOURNAL), "--output")
        if unfinished(self.output):
            raise UsageError(
                f"beside --output {self.output} is the record of a run that was cut short: its result goes there",
                "name another with --output, or finish that run with --resume",
            )
        if self.dry_run:
            return
        check_writable(self.output, "--output")
        check_side_files(self.side_files, check_result(self.output), self.overwrite)

    def _check_replaced(self, document: dict[str, Any]) -> None:
        """Raise UsageError if --output holds a result that the merged one does not contain."""
        if self.overwrite:
            return
        held = document_at(self.output)
        if not held:
            check_intact(self.output)
            return
        compared = [name for name in document["config"] if name not in NOT_COMPARED[document["command"]]]
        differing = disagreements(held, document, compared)
        if not differing:
            here = {example["index"]: example for example in document["examples"]}
            there = parse_result_file(self.output, held, KINDS).records
            lost = sum(here.get(record.index) != record.to_json() for record in there)
            differing = [f"{lost} of its images are not so in these shards"] if lost else []
        if differing:
            raise UsageError(
                f"{self.output} is another result: {', '.join(differing)}",
                "choose another --output, or add --overwrite to replace it",
            )

    def _write(self, merged: Merged, fields: Fields) -> None:
        images, log = self.side_files.get("--save-adversarial"), self.side_files.get("--tsv")
        adversarial = merged_images(merged) if images is not None else {}
        document = merged.to_json({setting_of(option): str(path) for option, path in self.written.items()})
        with locked(self.written), uninterrupted():
            self._check_replaced(document)
            with writing(self.output, _ADVICE):
                write_document(self.output, document)
            if images is not None:
                with writing(images, _ADVICE):
                    save_images(images, adversarial, merged.records, str(document["fingerprint"]))
            if log is not None:
                with writing(log, _ADVICE):
                    write_atomically(log, cohen_log(merged.records).encode())
        self.display.document(self.gate.judge(document, fields))
