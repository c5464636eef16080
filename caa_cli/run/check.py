"""`caa check`: finished results against what is required of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caa_cli.display import Display
from caa_cli.errors import DONE, PARTIAL, REQUIREMENT_NOT_MET, CaaError
from caa_cli.results.certificates import CertifySummary
from caa_cli.results.fields import Fields, attack_fields, certify_fields, compare_fields
from caa_cli.results.merging import summary_of
from caa_cli.results.parts import KINDS, check_origin, how_to_go_on, part_of, read_document
from caa_cli.results.requirements import Requirement, judge
from caa_cli.run.gate import say_unmet

_COMMANDS = (*KINDS, "compare")


@dataclass
class CheckRun:
    """Judges every file; nothing is written."""

    display: Display
    files: Sequence[Path]
    requirements: Sequence[Requirement]

    def execute(self) -> int:
        """Returns the exit code. Raises CaaError, before any file is judged, for one that can't be read."""
        results = [(path, *self._read(path)) for path in self.files]
        for _, document, fields in results:
            # Of a comparison of no images, which a shard may leave, the labels are not known.
            if document.get("attacks") != {}:
                for requirement in self.requirements:
                    fields.check(requirement.field)
        code, rows, found = DONE, [], []
        for path, document, fields in results:
            if document["status"] == "interrupted":
                self.display.warn(f"{path} is of a run that was interrupted, so it is not judged")
                self.display.warn(how_to_go_on(document))
                code = code or PARTIAL
                continue
            for verdict in judge(self.requirements, fields):
                what = f"{path}: {verdict}"
                rows.append(("met" if verdict.met else "not met", what))
                found.append({"file": str(path), **verdict.to_json()})
                if not verdict.met:
                    say_unmet(self.display, what)
                    code = REQUIREMENT_NOT_MET
        self.display.document({"files": [str(path) for path in self.files], "requirements": found})
        self.display.result("requirements", rows)
        return code

    def _read(self, path: Path) -> tuple[dict[str, Any], Fields]:
        document = read_document(path, _COMMANDS)
        if check_origin(path, document, _COMMANDS) == "compare":
            try:
                return {"status": document["status"], **document}, compare_fields(
                    document["attacks"].keys(), document
                )
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                what = f"no {error}" if isinstance(error, KeyError) else str(error)
                raise CaaError(f"{path} is damaged ({what})", "repeat the caa compare that wrote it") from error
        part = part_of(path, document, KINDS)
        summary = summary_of(part, part.records, part.seconds)
        if isinstance(summary, CertifySummary):
            return part.said, certify_fields(summary, part.records, part.config.get("radius"))
        return part.said, attack_fields(summary)
