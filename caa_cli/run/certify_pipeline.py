"""The pipeline of a certification: a certificate, or a decision on one radius, image by image."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.data.decoding import ImageError
from caa_cli.data.images import Images, read_example
from caa_cli.results.certificates import CERTIFIED, NOT_CERTIFIED, UNDECIDED, CertifyRecord
from caa_cli.results.records import ABSTAINED, FAILED
from caa_cli.run.batch_size import certified_together
from caa_cli.smoothing.certify import Certifier
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.sequential import Decider


@dataclass(frozen=True)
class CertifyPipeline:
    """The pipeline of one run over the examples of `images`. `caa certify` and `caa_cli.certify` are made of it."""

    plan: CertifyPlan
    classifier: SmoothedClassifier
    images: Images

    def run(self, todo: Sequence[int]) -> Iterator[CertifyRecord]:
        """The examples in order; as many images at a time as their selection draws fill a chunk."""
        plan, classifier, images = self.plan, self.classifier, self.images
        size = certified_together(classifier.votes_chunk, plan.selection_samples)
        for first in range(0, len(todo), size):
            began = time.perf_counter()
            examples: list[tuple[int, torch.Tensor, int]] = []
            for index in todo[first : first + size]:
                try:
                    examples.append((index, *read_example(images, index, classifier.num_classes)))
                except ImageError as error:
                    yield CertifyRecord(index, images.label(index), FAILED, error=error.problem)
            if not examples:
                continue
            numbers = [index for index, _, _ in examples]
            labels = [label for _, _, label in examples]
            x = torch.stack([image for _, image, _ in examples]).to(classifier.device)
            records = (self._certify if plan.radius is None else self._decide)(x, numbers, labels)
            seconds = (time.perf_counter() - began) / len(records)
            yield from [replace(record, seconds=seconds) for record in records]

    def _certify(self, x: torch.Tensor, indices: list[int], labels: list[int]) -> list[CertifyRecord]:
        return [
            CertifyRecord(
                index,
                label,
                CERTIFIED if certificate.confident else ABSTAINED,
                prediction=certificate.prediction if certificate.confident else None,
                radius=certificate.radius,
                correct=certificate.confident and certificate.prediction == label,
                votes_top=certificate.votes_top,
                samples=self.plan.samples,
                abstentions=certificate.abstentions,
                evaluations=certificate.evaluations,
            )
            for index, label, certificate in zip(
                indices, labels, certifier_of(self.plan).certify(self.classifier, x, indices), strict=True
            )
        ]

    def _decide(self, x: torch.Tensor, indices: list[int], labels: list[int]) -> list[CertifyRecord]:
        plan = self.plan
        decider = decider_of(plan)
        outcomes = {True: CERTIFIED, False: NOT_CERTIFIED, None: UNDECIDED}
        records = []
        for image, index, label in zip(x, indices, labels, strict=True):
            decision = decider.decide(self.classifier, image, index)
            records.append(
                CertifyRecord(
                    index,
                    label,
                    outcomes[decision.certified],
                    prediction=decision.prediction,
                    radius=plan.radius if decision.certified else None,
                    correct=decision.prediction == label,
                    votes_top=decision.votes_top,
                    samples=decision.samples,
                    evaluations=decision.evaluations,
                )
            )
        return records


def certifier_of(plan: CertifyPlan) -> Certifier:
    return Certifier(plan.selection_samples, plan.samples, plan.alpha, plan.bound, plan.seed, plan.certificate)


def decider_of(plan: CertifyPlan) -> Decider:
    """The test of a plan with a radius."""
    assert plan.radius is not None
    return Decider(
        plan.radius, plan.samples, plan.selection_samples, plan.alpha, plan.seed, certificate=plan.certificate
    )
