"""`caa certify` from the plan to the result file."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from caa_cli.config.plan import CertifyPlan
from caa_cli.data.decoding import ImageError
from caa_cli.data.images import Images, read_example
from caa_cli.display import REFRESH_SECONDS, Bar, Rows, number
from caa_cli.errors import DONE
from caa_cli.results.certificates import (
    CERTIFIED,
    NOT_CERTIFIED,
    UNDECIDED,
    CertifyRecord,
    CertifySummary,
    cohen_log,
    summarise_certificates,
)
from caa_cli.results.fields import certify_fields
from caa_cli.results.records import ABSTAINED, FAILED
from caa_cli.results.shards.result_file import Part
from caa_cli.results.store.files import write_atomically
from caa_cli.results.store.output import RunOutput
from caa_cli.results.store.ownership import names
from caa_cli.run.batch_size import BATCH_LIMIT
from caa_cli.run.gate import warn_of_nothing
from caa_cli.run.image_run import ImageRun
from caa_cli.run.reporting import certify_summary, files
from caa_cli.run.session import Target, load_target
from caa_cli.runtime.device import resolve_device
from caa_cli.runtime.signals import uninterrupted
from caa_cli.smoothing.certify import Certifier
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.sequential import Decider
from caa_cli.tuning.choose import check_memory


@dataclass
class CertifyRun(ImageRun):
    """`execute` fills in what the checkpoint says, so `plan` is the resolved one after it."""

    plan: CertifyPlan

    def execute(self) -> int:
        """Runs it all; returns the exit code. Raises CaaError for whatever the user can mend."""
        plan = self.plan
        output = RunOutput(plan.output, CertifyRecord, plan.written(), plan.resume, plan.overwrite)
        self.gate.check(certify_fields(radius=plan.radius))
        self.check_files(plan, output)
        target, indices = load_target(plan, resolve_device(plan.device, plan.shard.local), self.display)
        self.plan = plan = replace(plan, **target.resolved())
        self.display.plan("caa certify", [*target.describe(indices, self._bounds()), *_certify_rows(plan)])
        self._warn_if_impossible(target.card.num_classes)
        if plan.dry_run:
            evaluations = len(indices) * (plan.selection_samples + plan.samples)
            self.display.plan("what it takes", [("forward evaluations", f"{evaluations:,}, at most")])
            self.display.document(
                {"config": plan.config(), "images": len(indices), "forward_evaluations_at_most": evaluations}
            )
            return DONE
        header = {**target.header("certify", plan), "resume": self.resume_command}
        with output.reserved():
            held = output.finished(header, plan.compared_keys(), indices)
            if held is not None:
                self._show_again(output, held)
                return self.gate.exit_code(DONE, plan.shard.launched)
            classifier = target.classifier(indices, self.display)
            header["environment"]["engine"] = classifier.describe()
            output.begin()
            interrupted = self.work(output, indices, partial(self._work, output, target, classifier, indices))
            interrupted = self._finish(output, interrupted)
        check_memory(plan, classifier.device, self.display)
        code = self.exit_code(output, indices, interrupted, plan.shard.launched)
        return self.gate.exit_code(code, plan.shard.launched)

    def _work(
        self,
        output: RunOutput[CertifyRecord],
        target: Target,
        classifier: SmoothedClassifier,
        indices: Sequence[int],
        todo: list[int],
        bar: Bar,
    ) -> None:
        summed_up = 0.0
        for done, record in enumerate(self._records(classifier, target.images, todo), len(indices) - len(todo) + 1):
            output.add(record)
            if time.monotonic() - summed_up > REFRESH_SECONDS or done == len(indices):
                summed_up = time.monotonic()
                self._show_progress(bar, output.of(indices))

    def _records(self, classifier: SmoothedClassifier, images: Images, todo: list[int]) -> Iterator[CertifyRecord]:
        """The examples in order; as many images at a time as their selection draws fill a chunk."""
        plan = self.plan
        size = max(1, min(BATCH_LIMIT, classifier.votes_chunk // plan.selection_samples))
        for first in range(0, len(todo), size):
            began = time.perf_counter()
            found: list[tuple[int, torch.Tensor, int]] = []
            for index in todo[first : first + size]:
                try:
                    found.append((index, *read_example(images, index, classifier.num_classes)))
                except ImageError as error:
                    yield CertifyRecord(index, images.label(index), FAILED, error=error.problem)
            if not found:
                continue
            numbers = [index for index, _, _ in found]
            labels = [label for _, _, label in found]
            x = torch.stack([image for _, image, _ in found]).to(classifier.device)
            records = (self._certify if plan.radius is None else self._decide)(classifier, x, numbers, labels)
            seconds = (time.perf_counter() - began) / len(records)
            yield from [replace(record, seconds=seconds) for record in records]

    def _certify(
        self, classifier: SmoothedClassifier, x: torch.Tensor, indices: list[int], labels: list[int]
    ) -> list[CertifyRecord]:
        return [
            CertifyRecord(
                index,
                label,
                CERTIFIED if found.confident else ABSTAINED,
                prediction=found.prediction if found.confident else None,
                radius=found.radius,
                correct=found.confident and found.prediction == label,
                votes_top=found.votes_top,
                samples=self.plan.samples,
                abstentions=found.abstentions,
                evaluations=found.evaluations,
            )
            for index, label, found in zip(
                indices, labels, self._certifier().certify(classifier, x, indices), strict=True
            )
        ]

    def _decide(
        self, classifier: SmoothedClassifier, x: torch.Tensor, indices: list[int], labels: list[int]
    ) -> list[CertifyRecord]:
        plan = self.plan
        assert plan.radius is not None
        decider = self._decider(plan.radius)
        outcomes = {True: CERTIFIED, False: NOT_CERTIFIED, None: UNDECIDED}
        records = []
        for image, index, label in zip(x, indices, labels, strict=True):
            found = decider.decide(classifier, image, index)
            records.append(
                CertifyRecord(
                    index,
                    label,
                    outcomes[found.certified],
                    prediction=found.prediction,
                    radius=plan.radius if found.certified else None,
                    correct=found.prediction == label,
                    votes_top=found.votes_top,
                    samples=found.samples,
                    evaluations=found.evaluations,
                )
            )
        return records

    def _certifier(self) -> Certifier:
        plan = self.plan
        return Certifier(plan.selection_samples, plan.samples, plan.alpha, plan.bound, plan.seed)

    def _decider(self, radius: float) -> Decider:
        plan = self.plan
        return Decider(radius, plan.samples, plan.selection_samples, plan.alpha, plan.seed)

    def _bounds(self) -> str | None:
        """--bound has no part in deciding one radius."""
        plan = self.plan
        if plan.radius is None:
            return None
        return f"exact bounds, α = {plan.alpha:g} shared out over {len(self._decider(plan.radius).stages())} stages"

    def _warn_if_impossible(self, num_classes: int) -> None:
        """Some settings can certify nothing, however sure the model is."""
        plan = self.plan
        if plan.radius is None:
            most = float(self._certifier().best(num_classes).radius(plan.sigma or 0.0))
        else:
            most = self._decider(plan.radius).largest_radius(plan.sigma or 0.0)
        if most <= 0.0:
            self.display.warn(
                f"with {plan.samples} samples at α = {plan.alpha:g} not even a unanimous vote certifies anything: "
                "raise --samples or --alpha"
            )
        elif plan.radius is not None and most <= plan.radius:
            self.display.warn(
                f"with {plan.samples} samples at α = {plan.alpha:g} not even a unanimous vote reaches the radius "
                f"{plan.radius:g} (at most {most:.3f}): raise --samples"
            )

    def _show_progress(self, bar: Bar, records: list[CertifyRecord]) -> None:
        summary = summarise_certificates(records, self.plan.samples, 0.0, self.plan.radius)
        share = next(iter(summary.certified_accuracy.values()), 0.0)
        if self.plan.radius is None:
            text = (
                f"{100 * share:.0f}% right and certified · average radius {number(summary.average_certified_radius)}"
            )
        else:
            text = f"{100 * share:.0f}% right and certified · {summary.mean_samples or 0:,.0f} samples an image"
        bar.update(len(records), text)

    def _finish(self, output: RunOutput[CertifyRecord], interrupted: bool) -> bool:
        """Writes it all and shows it; returns whether the run was interrupted, by now."""
        plan, records, status = self.plan, output.everything(), output.status(interrupted)
        summary = summarise_certificates(records, plan.samples, time.perf_counter() - self.began, plan.radius)
        try:
            with uninterrupted():
                document = output.finish(status, summary.to_json(), records)
                self._write_side_files(output, records)
                output.close(status)
        except KeyboardInterrupt:  # it came while all was written, and ends what would follow
            interrupted = True
        self._show(document, summary, records, interrupted)
        return interrupted

    def _show_again(self, output: RunOutput[CertifyRecord], held: Part[CertifyRecord]) -> None:
        """The result of an earlier run; a log or a figure that it did not write is written now."""
        plan, document = self.plan, self.nothing_to_do(output)
        config = {name: str(getattr(plan, name)) for name in plan.WRITTEN if getattr(plan, name) is not None}
        if not all(
            names(document, option, path) and path.exists() for option, path in plan.written().items() if path
        ):
            with uninterrupted():
                self._write_side_files(output, held.records)
                document["config"] |= config
                output.write(document)
        summary = summarise_certificates(held.records, plan.samples, held.seconds, plan.radius)
        self._show(document, summary, held.records)

    def _write_side_files(self, output: RunOutput[CertifyRecord], records: Sequence[CertifyRecord]) -> None:
        plan = self.plan
        if plan.tsv is not None:
            with output.kept(plan.tsv):
                write_atomically(plan.tsv, cohen_log(records).encode())
        if plan.figure is not None:
            from caa_cli.report.figure import draw_certified_accuracy

            with output.kept(plan.figure):
                draw_certified_accuracy(plan.figure, records, f"{plan.dataset}, {plan.arch}, σ = {plan.sigma:g}")

    def _show(
        self,
        document: dict[str, Any],
        summary: CertifySummary,
        records: Sequence[CertifyRecord],
        interrupted: bool = False,
    ) -> None:
        plan = self.plan
        fields = certify_fields(summary, records, plan.radius)
        self.display.document(self.gate.judge(document, fields))
        self.display.result("result", [*certify_summary(summary, plan.radius), *files(plan.output, plan.written())])
        if not interrupted:
            warn_of_nothing(self.display, fields, plan.shard.count > 1)


def _certify_rows(plan: CertifyPlan) -> Rows:
    what = "the radius" if plan.radius is None else f"whether it reaches {plan.radius:g}"
    most = "" if plan.radius is None else "at most "
    return [
        ("certify", f"{what}: {most}{plan.samples} samples, class chosen on {plan.selection_samples} others"),
        ("results", str(plan.output)),
    ]
