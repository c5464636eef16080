"""`caa check`: finished results against what is required of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caa_cli.display import Display
from caa_cli.errors import DONE, PARTIAL, REQUIREMENT_NOT_MET, CaaError
from caa_cli.results.documents import KINDS
from caa_cli.results.fields import Fields, fields_of_comparison
from caa_cli.results.requirements import Requirement, judge
from caa_cli.results.shards.merged_result import summary_of
from caa_cli.results.shards.result_file import COMMANDS, check_origin, how_to_go_on, parse_result_file, read_document
from caa_cli.run.gate import Gate, say_unmet
from caa_cli.run.reporting import rows_and_fields


@dataclass
class CheckRun:
    """Judges every file; nothing is written."""

    display: Display
    files: Sequence[Path]
    requirements: Sequence[Requirement]

    def execute(self) -> int:
        """Returns the exit code. Raises CaaError, before any file is judged, for one that can't be read."""
        results = [(path, *_read(path)) for path in self.files]
        for _, document, fields in results:
            # Of a comparison without images, a shard's, the labels are not known.
            if document.get("attacks") != {} or document.get("models"):
                Gate(self.display, self.requirements).check(fields)
        code, rows, verdicts = DONE, [], []
        for path, document, fields in results:
            if document["status"] == "interrupted":
                self.display.warn(f"{path} is of a run that was interrupted, so it is not judged")
                self.display.warn(how_to_go_on(document))
                code = code or PARTIAL
                continue
            for verdict in judge(self.requirements, fields):
                what = f"{path}: {verdict}"
                rows.append(("met" if verdict.met else "not met", what))
                verdicts.append({"file": str(path), **verdict.to_json()})
                if not verdict.met:
                    say_unmet(self.display, what)
                    code = REQUIREMENT_NOT_MET
        self.display.document({"files": [str(path) for path in self.files], "requirements": verdicts})
        if rows:
            self.display.result("requirements", rows)
        return code


def _read(path: Path) -> tuple[dict[str, Any], Fields]:
    """A result's document and its numbers: those of a run from its examples, whatever its summary says."""
    document = read_document(path, COMMANDS)
    if check_origin(path, document, COMMANDS) == "compare":
        return document, _of_comparison(path, document)
    part = parse_result_file(path, document, KINDS)
    summary = summary_of(part, part.records, part.seconds)
    return document, rows_and_fields(summary, part.records, part.config.get("radius"))[1]


def _of_comparison(path: Path, document: dict[str, Any]) -> Fields:
    try:
        if not isinstance(document["status"], str):
            raise TypeError("its status is no text")
        return fields_of_comparison(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CaaError(f"{path} is damaged ({what})", "repeat the caa compare that wrote it") from error
