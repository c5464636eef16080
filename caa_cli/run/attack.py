"""`caa attack` from the plan to the result file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from caa_cli.config.plan import AttackPlan
from caa_cli.errors import DONE
from caa_cli.results.fields import attack_fields
from caa_cli.results.records import AttackRecord, AttackSummary, summarise
from caa_cli.results.shards.result_file import Part
from caa_cli.results.store.attack_output import AttackOutput
from caa_cli.results.store.images import Image
from caa_cli.run.batch_size import search_bytes
from caa_cli.run.describe import attack_rows, estimate, most_evaluations
from caa_cli.run.gate import warn_of_nothing
from caa_cli.run.image_run import ImageRun
from caa_cli.run.pipeline import AttackWork
from caa_cli.run.registry import build_attack
from caa_cli.run.reporting import attack_summary, files
from caa_cli.run.session import Target, load_target
from caa_cli.run.threat_model import open_access
from caa_cli.runtime.device import resolve_device
from caa_cli.runtime.signals import uninterrupted
from caa_cli.smoothing.certify import Certifier
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.choose import check_memory
from caa_cli.verification.verifier import Verifier


@dataclass
class AttackRun(ImageRun):
    """`execute` fills in what the checkpoint says, so `plan` is the resolved one after it.

    classifiers: by the checkpoint's sha256 and what the search sees of it. Runs that share them, and all settings of
    the model, tune it once.
    images_again: whether images that a resumed run lacks are worth attacking those examples again.
    """

    plan: AttackPlan
    classifiers: dict[str, SmoothedClassifier] = field(default_factory=dict, kw_only=True)
    images_again: bool = field(default=True, kw_only=True)

    def execute(self) -> int:
        """Runs it all; returns the exit code. Raises CaaError for whatever the user can mend."""
        plan = self.plan
        self.gate.check(attack_fields())
        output = AttackOutput(plan, self.images_again)
        self.check_files(plan, output)
        target, indices = load_target(plan, resolve_device(plan.device, plan.shard.local), self.display)
        access = open_access(plan, target.card, target.images, self.display)
        # The plan with everything that the checkpoint had to say filled in, as the results record it.
        self.plan = plan = replace(
            plan,
            **target.resolved(),
            attack_sigma=plan.attack_sigma or target.card.sigma,
            selection_samples=plan.selection_draws,
            certify_samples=plan.certification_draws,
            verify_samples=plan.verification_draws,
        )
        attack = build_attack(plan)
        rows = attack_rows(plan, attack, target.card.num_classes)
        self.display.plan("caa attack", [*target.describe(indices), *rows])
        self._warn_if_impossible(target.card.num_classes)
        if plan.dry_run:
            self.display.plan(
                "model evaluations: at most · typical on MNIST", estimate(plan, attack, access.cost, len(indices))
            )
            most = most_evaluations(plan, attack, access.cost, len(indices))
            self.display.document({"config": plan.config(), "images": len(indices), **most})
            return DONE
        header = {**target.header("attack", plan, access.surrogate), "resume": self.resume_command}
        with output.reserved():
            held = output.finished(header, plan.compared_keys(), indices)
            if held is not None:
                self._show_again(output, held, target)
                return self.gate.exit_code(DONE, plan.shard.launched)
            seen = f"{target.weights.sha256} {access.name}"
            if seen not in self.classifiers:
                reserve = search_bytes(plan, attack, access, target.card.input_shape)
                self.classifiers[seen] = target.classifier(indices, self.display, access, reserve)
            classifier = self.classifiers[seen]
            header["environment"]["engine"] = classifier.describe()
            output.begin(target.card.input_shape)
            interrupted = self.work(
                output,
                indices,
                lambda todo, bar: AttackWork(plan, attack, classifier, target.images, output, bar, indices).run(todo),
            )
            interrupted = self._finish(output, target, interrupted)
        check_memory(plan, classifier.device, self.display)
        code = self.exit_code(output, indices, interrupted, plan.shard.launched)
        return self.gate.exit_code(code, plan.shard.launched)

    def _warn_if_impossible(self, num_classes: int) -> None:
        """Says where too few samples make a run find nothing, whatever it does."""
        plan, tries = self.plan, Verifier().tries
        for option, what, samples, alpha in (
            ("--certify-samples", "certify", plan.certification_draws, plan.alpha),
            ("--verify-samples", "prove", plan.verification_draws, plan.alpha / tries),
        ):
            if not Certifier(samples=samples, alpha=alpha, bound=plan.bound).best(num_classes).confident:
                self.display.warn(
                    f"{option} {samples} can {what} nothing: not even a unanimous vote is enough "
                    f"at α = {plan.alpha:g}"
                )

    def _finish(self, output: AttackOutput, target: Target, interrupted: bool) -> bool:
        """Writes it all and shows it; returns whether the run was interrupted, by now."""
        records, status = output.everything(), output.status(interrupted)
        summary = summarise(records, time.perf_counter() - self.began)
        try:
            with uninterrupted():
                document = output.finish(status, summary.to_json(), records)
                output.finish_images(records, partial(_draw, target))
                output.close(status)
        except KeyboardInterrupt:  # it came while all was written, and ends what would follow
            interrupted = True
        self._show(document, summary, interrupted)
        return interrupted

    def _show_again(self, output: AttackOutput, held: Part[AttackRecord], target: Target) -> None:
        """The result of an earlier run; a figure that it did not draw is drawn of the images that it kept."""
        document = self.nothing_to_do(output)
        records = list(held.records)
        if self.plan.figure is not None and not self.plan.figure.exists():
            kept = output.kept_by(held.config)
            images = {index: kept[index][index] for index in kept}
            with uninterrupted(), output.kept(self.plan.figure):
                _draw(target, self.plan.figure, images, records)
        self._show(document, summarise(records, held.seconds))

    def _show(self, document: dict[str, Any], summary: AttackSummary, interrupted: bool = False) -> None:
        fields = attack_fields(summary)
        self.display.document(self.gate.judge(document, fields))
        self.display.result("result", [*attack_summary(summary), *files(self.plan.output, self.plan.written())])
        if not interrupted:
            warn_of_nothing(self.display, fields, self.plan.shard.count > 1)


def _draw(target: Target, path: Path, found: Mapping[int, Image], records: list[AttackRecord]) -> None:
    from caa_cli.report.figure import draw_examples

    draw_examples(path, lambda index: target.images.image(index).numpy(), found, records)
