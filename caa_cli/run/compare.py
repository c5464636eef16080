"""`caa compare` from the plan to the table: attacks one after the other, or the files of finished ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caa_cli.config.compare_plan import ComparePlan
from caa_cli.display import AttackDisplay, Display
from caa_cli.errors import DONE, INTERRUPTED, PARTIAL, CaaError, UsageError
from caa_cli.report.presentation import AnyComparison
from caa_cli.results.comparison import Comparison, compare
from caa_cli.results.comparison_document import read_comparison
from caa_cli.results.comparison_of_certificates import CertifiedComparison, compare_certificates
from caa_cli.results.comparison_of_models import compare_models
from caa_cli.results.documents import KINDS, document_at, head
from caa_cli.results.fields import compare_fields, fields_of_comparison
from caa_cli.results.requirements import Requirement
from caa_cli.results.shards.by_model import by_model
from caa_cli.results.shards.common_images import held_by_all
from caa_cli.results.shards.compared_files import compared_files, in_a_command
from caa_cli.results.shards.result_file import ResultFile, parse_result_file, read_result_file
from caa_cli.results.shards.run_results import AttackResult, join
from caa_cli.results.store.attack_output import AttackOutput
from caa_cli.results.store.compare_output import CompareOutput
from caa_cli.results.store.journal import unfinished
from caa_cli.results.store.locks import locked
from caa_cli.run.compare_report import CompareReport, check_applicable
from caa_cli.run.dry_run import summed
from caa_cli.run.gate import Gate, warn_of_nothing
from caa_cli.run.reporting import showing
from caa_cli.runtime.collector import importing
from caa_cli.runtime.signals import uninterrupted
from caa_cli.runtime.words import counted


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
        self.report = CompareReport(self.plan, self.output, self.display, self.gate, self.command_line)

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
        for option, path in self.plan.written().items():
            if option != "--output":
                from caa_cli.report.figure import check_figure

                check_figure(path.with_suffix(".svg") if option == "--html" else path, option)

    def _check_attacks(self) -> None:
        """Check that every attack can write its files, and that some of them are not done already, unasked."""
        plan = self.plan
        for attack in plan.attacks.values():
            AttackOutput(attack).check(attack.shard)
        outputs = {label: attack.output for label, attack in plan.attacks.items()}
        begun = [path for path in outputs.values() if path.exists() or unfinished(path)]
        if not plan.resume and not plan.overwrite and 0 < len(begun) < len(outputs):
            new = ", ".join(label for label, path in outputs.items() if path not in begun)
            raise UsageError(
                f"some of its attacks are done already, as {begun[0]} is, and others have not begun: {new}",
                "add --resume to go on with them, or --overwrite to begin anew",
            )

    def _read(self) -> int:
        """Compare the results that are named, or show a comparison again that is the only one of them."""
        plan = self.plan
        again, parts, origin = None, list[ResultFile[Any]](), None
        comparison: AnyComparison
        if len(plan.files) == 1 and not plan.names:
            again = read_comparison(plan.files[0], plan.bootstrap, plan.seed, plan.reference)
        if again is None:
            parts = self._read_files()
            comparison = _compared(parts, plan)
        elif plan.common_images:
            problem = f"--common-images is of results of attacks, and {plan.files[0]} compares them already"
            raise UsageError(problem, "leave it out")
        else:
            comparison, origin = again
        check_applicable(plan, comparison)
        partial = comparison.partial or any(part.status != "complete" for part in parts)
        status = "partial" if partial else "complete"
        document = comparison.to_json(status)
        self.gate.check(fields_of_comparison(document))
        if plan.dry_run:
            certified = isinstance(comparison, CertifiedComparison)
            what, count = ("models", "examples") if certified else ("attacks", "eligible")
            images = counted(document["summary"][count], "image")
            self.display.plan("caa compare", [(what, ", ".join(comparison.labels)), (count, images)])
            self.display.document(document)
            return DONE
        fields = self.report.finish(comparison, status, origin)
        warn_of_nothing(self.display, fields)
        return self.gate.exit_code(PARTIAL if partial else DONE)

    def _read_files(self) -> list[ResultFile[Any]]:
        try:
            return [self._read_file(path) for path in self.plan.files]
        except UsageError as error:  # finished comparisons among them
            compared = {path: compared_files(path, document_at(path)) for path in self.plan.files}
            if len(compared) < 2 or not any(compared.values()):
                raise
            words = in_a_command([file for path, files in compared.items() for file in files or [path]])
            hint = f"name the files that are compared: caa compare {' '.join(words)}"
            raise UsageError(error.problem, hint) from error

    def _read_file(self, path: Path) -> ResultFile[Any]:
        part, name = read_result_file(path, tuple(KINDS)), self.plan.names.get(path)
        return part if name is None else replace(part, config={**part.config, "name": name})

    def _run(self) -> int:
        """Run the attacks, and show those that are finished."""
        plan = self.plan
        documents, codes = self._run_attacks()
        if plan.dry_run:
            rows, total = summed(documents.values())
            self.display.forecast("all of them, one after the other", rows)
            self.display.document({"attacks": documents, **total})
            return DONE
        partial, interrupted = PARTIAL in codes, INTERRUPTED in codes
        attacks = [_result(label, plan.attacks[label].output, document) for label, document in documents.items()]
        if (comparison := self._comparison(attacks)) is not None:
            partial |= comparison.partial
            with showing(interrupted):
                self.report.finish(comparison, "interrupted" if interrupted else "partial" if partial else "complete")
        elif not interrupted:
            self._finish_empty(attacks)
        if interrupted:
            return INTERRUPTED
        launched = any(attack.shard.launched for attack in plan.attacks.values())  # see `ImageRun._exit_code`
        return self.gate.exit_code(PARTIAL if partial and not launched else DONE, launched)

    def _run_attacks(self) -> tuple[dict[str, dict[str, Any]], list[int]]:
        """Run the attacks in turn, each with its own result file, until one is interrupted.

        Returns the documents of their results by label, and their exit codes.
        """
        with importing():
            from caa_cli.run.attack import check_search, run_attack

        for attack in self.plan.attacks.values():  # before the first of them has taken hours
            check_search(attack)
        plan, messages, classifiers = self.plan, set[str](), dict[str, Any]()
        documents: dict[str, dict[str, Any]] = {}
        codes: list[int] = []
        for number, (label, attack) in enumerate(plan.attacks.items(), 1):
            display = AttackDisplay(self.display, f"{label} ({number} of {len(plan.attacks)})", messages)
            try:
                code = run_attack(
                    attack, display, self.resume_command, images_again=plan.images_again, classifiers=classifiers
                )
            except CaaError as error:
                if not documents or "--resume" in (error.hint or ""):
                    raise
                kept = f"the attacks before {label} are done and kept: go on with --resume"
                raise error.with_advice(kept) from error
            except KeyboardInterrupt:
                code = INTERRUPTED
                self.display.warn(f"interrupted: go on with: {self.resume_command}")
            if display.result_document is not None:
                documents[label] = display.result_document
            codes.append(code)
            if code == INTERRUPTED:
                break
        return documents, codes

    def _comparison(self, attacks: Sequence[AttackResult]) -> Comparison | None:
        """Compare the attacks that have results, of which one that was cut short is left out.

        It would take images away from those that are complete. None: no attack has an image, as in a shard of none.
        """
        plan = self.plan
        begun = [attack for attack in attacks if attack.records]
        shown = [attack for attack in begun if not attack.interrupted] or begun
        if not shown:
            return None
        left_out = [label for label in plan.attacks if label not in {attack.label for attack in shown}]
        reference = None if plan.reference in left_out else plan.reference
        comparison = compare(shown, plan.bootstrap, plan.seed, reference)
        if not left_out:
            return comparison
        notes = (*comparison.notes, f"not finished yet, so left out: {', '.join(left_out)}")
        return replace(comparison, notes=notes)

    def _finish_empty(self, attacks: Sequence[AttackResult]) -> None:
        """A shard that has no images leaves a result too, so that a script finds one for each."""
        first = attacks[0].parts[0]
        document = {
            **head("compare", "complete"),
            "environment": first.environment,
            "checkpoint": first.checkpoint,
            "images": first.images,
            "notes": ["this shard has no images"],
            "attacks": {},
        }
        with uninterrupted():
            self.report.write_document(document)
        self.report.show(document, compare_fields(self.plan.attacks))


def _result(label: str, path: Path, document: dict[str, Any]) -> AttackResult:
    part: ResultFile[Any] = parse_result_file(path, document)
    return AttackResult(label, (part,), {record.index: record for record in part.records})


def _compared(parts: Sequence[ResultFile[Any]], plan: ComparePlan) -> AnyComparison:
    """Compare files of one command: attacks on a model or several, or certificates. Raises UsageError."""
    first = parts[0]
    for part in parts[1:]:
        if part.command != first.command:
            raise UsageError(
                f"{first.path} is of caa {first.command} and {part.path} of caa {part.command}",
                "name results of one of the two",
            )
    groups = by_model(parts)
    if first.command == "certify":
        return compare_certificates(groups, plan.common_images)
    if len(groups) == 1:
        attacks = join(parts, gaps=plan.common_images)
        among = held_by_all(attacks) if plan.common_images else None
        return compare(attacks, plan.bootstrap, plan.seed, plan.reference, among)
    return compare_models(groups, plan.bootstrap, plan.seed, plan.reference, plan.common_images)
