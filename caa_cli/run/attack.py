"""`caa attack` from the plan to the result file."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from caa_cli.device import resolve_device
from caa_cli.display import Display
from caa_cli.errors import DONE, INTERRUPTED, PARTIAL
from caa_cli.plan import AttackPlan
from caa_cli.results.images import Image
from caa_cli.results.output import AttackOutput
from caa_cli.results.records import FAILED, AttackRecord, summarise
from caa_cli.run.describe import attack_rows, estimate, most_evaluations, summary_rows
from caa_cli.run.target import Target, load_target
from caa_cli.run.work import AttackWork
from caa_cli.signals import termination_interrupts, uninterrupted
from caa_cli.smoothing.classifier import SmoothedClassifier


@dataclass
class AttackRun:
    """One run. `resume_command` is the command that would go on with it, for the advice after an interruption."""

    plan: AttackPlan
    display: Display
    resume_command: str
    began: float = field(default_factory=time.perf_counter)

    def execute(self) -> int:
        """Runs it all; returns the exit code. Raises CaaError for whatever the user can mend."""
        plan = self.plan
        output = AttackOutput(plan.output, plan.save_adversarial, plan.figure)
        if not plan.dry_run:
            output.check(plan.written(), plan.resume, plan.overwrite)
        if plan.figure is not None:
            from caa_cli.results.figure import check_figure

            check_figure(plan.figure)
        target, indices = load_target(plan, resolve_device(plan.device), self.display)
        # The plan with everything that the checkpoint had to say filled in, as the results record it.
        self.plan = plan = replace(
            plan,
            **target.resolved(),
            certify_samples=plan.certification_draws,
            verify_samples=plan.verification_draws,
        )
        self.display.plan("caa attack", [*target.describe(indices), *attack_rows(plan)])
        if plan.dry_run:
            self.display.plan("model evaluations: at most · typical on MNIST", estimate(plan, len(indices)))
            self.display.document(
                {"config": plan.config(), "images": len(indices), **most_evaluations(plan, len(indices))}
            )
            return DONE
        classifier = target.classifier(indices[0], self.display)
        header = target.header("attack", plan)
        have = output.begin(header, plan.compared_keys(), plan.resume, target.card.input_shape)
        if have:
            self.display.note(f"going on with {output.journal.path}: {len(have)} images are done already")
        interrupted = self._attack_all(classifier, target, indices, output)
        return self._finish(output, target, indices, interrupted)

    def _attack_all(
        self, classifier: SmoothedClassifier, target: Target, indices: range, output: AttackOutput
    ) -> bool:
        """Works through the images; returns whether it was interrupted. Finished ones are in `output`."""
        todo = [index for index in indices if index not in output.records]
        bar = self.display.bar("images", len(indices), len(indices) - len(todo))
        try:
            with output.working(), bar as shown, termination_interrupts():
                AttackWork(self.plan, classifier, target.images, output, shown, indices).run(todo)
        except KeyboardInterrupt:
            return True
        return False

    def _finish(self, output: AttackOutput, target: Target, indices: range, interrupted: bool) -> int:
        records = output.everything()
        failed = any(record.outcome == FAILED for record in records)
        status = "interrupted" if interrupted else "partial" if failed else "complete"
        summary = summarise(records, time.perf_counter() - self.began)

        def draw(path: Path, found: dict[int, Image], attacked: list[AttackRecord]) -> None:
            from caa_cli.results.figure import draw_examples

            originals = {index: target.images.image(index).numpy() for index in found}
            draw_examples(path, originals, found, attacked)

        with uninterrupted():
            document = output.finish(status, summary.to_json(), records)
            output.finish_images(status, records, draw)
        self.display.document(document)
        self.display.result("result", summary_rows(summary, self.plan))
        if interrupted:
            self.display.interrupted(len(output.of(indices)), len(indices), output.output, self.resume_command)
            return INTERRUPTED
        return PARTIAL if failed else DONE
