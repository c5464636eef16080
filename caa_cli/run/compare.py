"""`caa compare` from the plan to the table: attacks one after the other, or the files of finished ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caa_cli import __version__
from caa_cli.config.compare_plan import ComparePlan
from caa_cli.display import AttackDisplay, Display
from caa_cli.errors import DONE, INTERRUPTED, PARTIAL, CaaError, UsageError
from caa_cli.report.tables import HEADINGS, caption, cells
from caa_cli.report.writers import WRITERS
from caa_cli.results.comparison import Comparison, compare
from caa_cli.results.comparison_document import KEPT, read_comparison
from caa_cli.results.fields import Fields, compare_fields
from caa_cli.results.records import SCHEMA_VERSION, AttackRecord
from caa_cli.results.requirements import Requirement
from caa_cli.results.shards.joining import AttackResult, join
from caa_cli.results.shards.result_file import ResultFile, parse_result_file, read_result_file
from caa_cli.results.store.attack_output import AttackOutput
from caa_cli.results.store.compare_output import CompareOutput
from caa_cli.results.store.files import write_atomically, written
from caa_cli.results.store.journal import Journal
from caa_cli.results.store.locks import locked
from caa_cli.run.drawing import drawing
from caa_cli.run.gate import Gate, warn_of_nothing
from caa_cli.runtime.signals import uninterrupted

_KEPT = "the attacks' own results are kept: free some space and compare their files again"


@dataclass
class CompareRun:
    """One comparison. command_line: the command as typed, without --resume."""

    display: Display
    command_line: str
    plan: ComparePlan
    requirements: Sequence[Requirement] = ()

    def __post_init__(self) -> None:
        self.gate = Gate(self.display, self.requirements)
        self.output = CompareOutput(self.plan)

    @property
    def resume_command(self) -> str:
        """The command that would go on with it."""
        return f"{self.command_line} --resume"

    def execute(self) -> int:
        """Run it; returns the exit code. Raises CaaError for whatever the user can mend."""
        plan = self.plan
        if plan.attacks:
            self.gate.check(compare_fields(plan.attacks))
        self._check_figures()
        if not plan.dry_run:
            self.output.check()
            self._check_attacks()
        with locked({} if plan.dry_run else plan.written()):
            return self._read() if plan.files else self._run()

    def _check_figures(self) -> None:
        plan = self.plan
        wanted = dict(plan.pictures.values())
        if plan.figure_examples is not None:
            wanted["--figure-examples"] = plan.figure_examples
        if plan.html is not None:
            wanted["--html"] = plan.html.with_suffix(".svg")
        for option, path in wanted.items():
            from caa_cli.report.figure import check_figure

            check_figure(path, option)

    def _check_attacks(self) -> None:
        """Check that every attack can write its files, and that no interrupted comparison is in the way."""
        plan = self.plan
        for attack in plan.attacks.values():
            AttackOutput(attack).check(attack.shard)
        outputs = [attack.output for attack in plan.attacks.values()]
        begun = [path for path in outputs if path.exists() or Journal.beside(path, AttackRecord).path.exists()]
        if not plan.resume and not plan.overwrite and 0 < len(begun) < len(outputs):
            raise UsageError(
                f"{begun[0]} is of a comparison that was cut short: some of its attacks are done",
                "add --resume to go on with it, or --overwrite to begin anew",
            )

    def _read(self) -> int:
        plan, kept = self.plan, {}
        again = read_comparison(plan.files[0], plan.bootstrap, plan.seed) if len(plan.files) == 1 else None
        if again is not None:
            comparison, held = again
            kept = {name: held[name] for name in KEPT if name in held}
        else:
            attacks = join([read_result_file(path) for path in plan.files])
            comparison = compare(attacks, plan.bootstrap, plan.seed)
        self.gate.check(compare_fields(comparison.labels))
        parts = [part for attack in comparison.attacks for part in attack.parts]
        partial = comparison.partial or any(part.status != "complete" for part in parts)
        status = "partial" if partial else "complete"
        if self.plan.dry_run:
            self.display.plan(
                "caa compare",
                [("attacks", ", ".join(comparison.labels)), ("eligible", f"{len(comparison.eligible)} images")],
            )
            self.display.document(comparison.to_json(status))
            return DONE
        fields = self._finish(comparison, status, replacing=True, kept=kept)
        warn_of_nothing(self.display, fields)
        return self.gate.exit_code(PARTIAL if partial else DONE)

    def _run(self) -> int:
        """Run the attacks in turn, each with its own result file; finished ones are shown in any case."""
        from caa_cli.run.attack import run_attack

        plan, messages = self.plan, set[str]()
        classifiers: dict[str, Any] = {}
        documents: dict[str, dict[str, Any]] = {}
        partial = interrupted = False
        for number, (label, attack) in enumerate(plan.attacks.items(), 1):
            display = AttackDisplay(self.display, f"{label} ({number} of {len(plan.attacks)})", messages)
            try:
                code = run_attack(
                    attack,
                    display,
                    self.resume_command,
                    images_again=plan.images_again,
                    classifiers=classifiers,
                )
            except CaaError as error:
                if not documents or "--resume" in (error.hint or ""):
                    raise
                kept = f"the attacks before {label} are done and kept: go on with --resume"
                raise CaaError(error.problem, f"{error.hint}; {kept}" if error.hint else kept) from error
            except KeyboardInterrupt:
                code = INTERRUPTED
                self.display.warn(f"interrupted: go on with: {self.resume_command}")
            if display.result_document is not None:
                documents[label] = display.result_document
            partial |= code == PARTIAL
            interrupted = code == INTERRUPTED
            if interrupted:
                break
        if plan.dry_run:
            self.display.document({"attacks": documents})
            return DONE
        attacks = [_result(label, plan.attacks[label].output, found) for label, found in documents.items()]
        # One that was cut short would take images away from those that are complete; a shard may have no images.
        begun = [attack for attack in attacks if attack.records]
        shown = [attack for attack in begun if not attack.interrupted] or begun
        if shown:
            comparison = compare(shown, plan.bootstrap, plan.seed)
            left_out = [label for label in plan.attacks if label not in comparison.labels]
            if left_out:
                notes = (*comparison.notes, f"not finished yet, so left out: {', '.join(left_out)}")
                comparison = replace(comparison, notes=notes)
            partial |= comparison.partial
            self._finish(comparison, "interrupted" if interrupted else "partial" if partial else "complete")
        elif not interrupted:
            self._finish_empty(attacks)
        if interrupted:
            return INTERRUPTED
        launched = any(attack.shard.launched for attack in plan.attacks.values())  # see `ImageRun._exit_code`
        return self.gate.exit_code(PARTIAL if partial and not launched else DONE, launched)

    def _finish_empty(self, attacks: Sequence[AttackResult]) -> None:
        """A shard that has no images leaves a result too, so that a script finds one for each."""
        first = attacks[0].parts[0]
        document = {
            "schema_version": SCHEMA_VERSION,
            "tool_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "status": "complete",
            "command": "compare",
            "environment": first.environment,
            "checkpoint": first.checkpoint,
            "images": first.images,
            "notes": ["this shard has no images"],
            "attacks": {},
        }
        with uninterrupted():
            self._write_document(document)
        self.display.document(self.gate.judge(document, compare_fields(self.plan.attacks)))

    def _write_document(self, document: dict[str, Any]) -> None:
        if self.plan.output is not None:
            content = json.dumps(document, indent=2, allow_nan=False) + "\n"
            with written(self.plan.output, "--output", _KEPT):
                write_atomically(self.plan.output, content.encode())

    def _finish(
        self, comparison: Comparison, status: str, replacing: bool = False, kept: Mapping[str, Any] | None = None
    ) -> Fields:
        """Writes what was asked for, then shows the table; returns its numbers.

        replacing: what is written may be in place of another comparison, which is then refused.  kept: what a
        comparison that is shown again keeps of its document.
        """
        plan = self.plan
        gallery = None
        if plan.html is not None or plan.figure_examples is not None:
            from caa_cli.run.gallery import gallery_of

            gallery = gallery_of(comparison)
        document = {**comparison.to_json(status), "command_line": self.command_line, **(kept or {})}
        if replacing:
            self.output.check_shown(document)
        # As in the result of any run, so that a later one knows them for its own.
        document["config"] |= {
            option.removeprefix("--").replace("-", "_"): str(path) for option, path in self.output.side_files.items()
        }
        first = comparison.attacks[0].parts[0]
        title = f"{first.setting('dataset')}, {first.setting('arch')}, σ = {first.setting('sigma'):g}"
        with uninterrupted():
            self._write_document(document)
            for name, (option, path) in plan.pictures.items():
                from caa_cli.report.plots import write_picture

                with written(path, option, _KEPT), drawing(option, path, self.display):
                    write_picture(path, name, comparison, title)
            if plan.figure_examples is not None and gallery is not None:
                from caa_cli.report.gallery import draw_gallery

                place, option = plan.figure_examples, "--figure-examples"
                with written(place, option, _KEPT), drawing(option, place, self.display):
                    draw_gallery(place, gallery, title, comparison.fingerprint)
            if plan.html is not None:
                from caa_cli.report.html import report

                with written(plan.html, "--html", _KEPT):
                    write_atomically(plan.html, report(comparison, document, gallery).encode())
        for note in comparison.notes:
            self.display.warn(note)
        fields = compare_fields(comparison.labels, document)
        self.display.document(self.gate.judge(document, fields))
        if plan.format in WRITERS:
            self.display.text(WRITERS[plan.format](comparison))
        else:
            headings = ["attack", *(heading.text for heading in HEADINGS)]
            rows = [
                [label, *(f"{value}\n{spread}" if spread else value for value, spread in row)]
                for label, row in zip(comparison.labels, cells(comparison), strict=True)
            ]
            self.display.grid(title, headings, rows, caption(comparison))
        files = [str(path) for path in plan.written().values() if path.exists()]
        if files:
            self.display.note(f"written: {', '.join(files)}")
        return fields


def _result(label: str, path: Path, document: dict[str, Any]) -> AttackResult:
    part: ResultFile[Any] = parse_result_file(path, document)
    return AttackResult(label, (part,), {record.index: record for record in part.records})
