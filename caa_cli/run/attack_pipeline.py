"""The pipeline of an attack run: certificate → search → verification, of the images that a batch holds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.loop import Search
from caa_cli.attacks.common.state import Batch, Example, Finding
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.data.decoding import ImageError
from caa_cli.data.images import Images, read_example
from caa_cli.errors import CaaError
from caa_cli.results.records import (
    ABSTAINED,
    ATTACKED,
    FAILED,
    LABEL_IS_TARGET,
    MISCLASSIFIED,
    NOT_FOUND,
    NOT_VERIFIED,
    AttackRecord,
)
from caa_cli.results.store.images import Image
from caa_cli.run.batch_size import certified_together, searched_together
from caa_cli.run.starting_points import StartingPoints
from caa_cli.run.targets import Targets
from caa_cli.runtime.device import in_mode
from caa_cli.runtime.memory import is_out_of_memory
from caa_cli.smoothing.certify import Certificate, Certifier
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.verification.verifier import Verified, Verifier


@dataclass(frozen=True)
class CleanImage:
    """An image before the search, with what certification found, or why it could not be read.

    seconds: reading, certification and the choice of starting points together.  target: as far as it is known.
    """

    index: int
    label: int
    seconds: float
    certificate: Certificate | None = None
    example: Example | None = None
    error: str | None = None
    target: int | None = None

    @property
    def record(self) -> AttackRecord:
        """The result of an image that is not eligible."""
        clean = self.certificate
        if clean is None:
            outcome = FAILED if self.error is not None else LABEL_IS_TARGET
            return AttackRecord(self.index, self.label, outcome, target=self.target, error=self.error)
        return AttackRecord(
            self.index,
            self.label,
            MISCLASSIFIED if clean.confident else ABSTAINED,
            prediction=clean.prediction if clean.confident else None,
            target=self.target,
            forward_evaluations=clean.evaluations,
            abstentions=clean.abstentions,
            seconds=self.seconds,
        )


@dataclass
class AttackPipeline:
    """The pipeline of one run, over the examples of `images`; on_step sees every state of the search.

    `caa attack` and `caa_cli.attack` are both made of it.
    """

    plan: AttackPlan
    attack: Attack[Any]
    classifier: SmoothedClassifier
    images: Images
    on_step: Callable[[Batch], None] = lambda state: None
    targets: Targets = field(default_factory=Targets)

    def run(self, todo: Sequence[int]) -> Iterator[tuple[AttackRecord, Image | None]]:
        """The record of each of these examples, with its adversarial image, as soon as it is finished.

        Raises CaaError if the states of so many images don't fit in the memory.
        """
        sigma = self.plan.attack_sigma or self.classifier.sigma
        batch = searched_together(self.plan, self.attack, self.classifier.search)
        classifier = self.classifier.search.with_sigma(sigma)
        search = Search(self.attack, classifier, batch, self.on_step, self.plan.restarts)
        verifier = self._verifier(sigma)
        try:
            yield from self._work_through(todo, search, verifier)
        except (RuntimeError, MemoryError) as error:
            # Chunks that are too large have been halved already, so the states of the images take too much memory.
            if not is_out_of_memory(error):
                raise
            hint = "use a smaller --batch-size" if search.batch > 1 else "free some of it, or use fewer --iterations"
            raise CaaError(f"{self.classifier.device} is out of memory", hint) from error

    def _work_through(
        self, todo: Sequence[int], search: Search, verifier: Verifier
    ) -> Iterator[tuple[AttackRecord, Image | None]]:
        """Certificate → search → verification. Images are certified only as the search has places for them."""
        waiting, searched = deque(todo), dict[int, CleanImage]()
        while waiting or search.busy:
            joining: list[Example] = []
            while waiting and len(joining) < search.free:
                together = certified_together(self.classifier.votes_chunk, self.plan.selection_samples)
                count = min(len(waiting), search.free - len(joining), together)
                for clean in self._certify([waiting.popleft() for _ in range(count)]):
                    if clean.example is None:
                        yield clean.record, None
                    else:
                        searched[clean.index] = clean
                        joining.append(clean.example)
            with self._search_mode():
                search.join(joining)
                findings = search.advance()
            ended = [(searched.pop(finding.example.index), finding) for finding in findings]
            yield from self._verify(ended, verifier)

    def _search_mode(self) -> AbstractContextManager[None]:
        plan = self.plan
        return nullcontext() if plan.search_dtype == plan.dtype else in_mode(plan.search_dtype)

    def _verifier(self, search_sigma: float) -> Verifier:
        plan = self.plan
        return Verifier(
            rule=plan.verification,
            samples=plan.verify_samples,
            alpha=plan.alpha,
            bound=plan.bound,
            seed=plan.seed,
            finish=plan.finish,
            probe_samples=plan.selection_samples,
            search_sigma=search_sigma,
        )

    @cached_property
    def _certifier(self) -> Certifier:
        plan = self.plan
        return Certifier(
            plan.selection_samples, plan.certify_samples, plan.alpha, plan.bound, plan.seed, plan.certificate
        )

    @cached_property
    def _starting_points(self) -> StartingPoints | None:
        return None if self.classifier.differentiates else StartingPoints(self.images)

    def _certify(self, indices: Sequence[int]) -> list[CleanImage]:
        """Read and certify the images of a few indices; those without a certificate come first."""
        began, classifier = time.perf_counter(), self.classifier
        excluded, read = list[CleanImage](), dict[int, tuple[Tensor, int, int | None]]()
        for index in indices:
            try:
                image, label = read_example(self.images, index, classifier.num_classes)
            except ImageError as error:
                excluded.append(CleanImage(index, self.images.label(index), 0.0, error=error.problem))
                continue
            target = self.targets.before(index, label, classifier.num_classes)
            if target == label:
                excluded.append(CleanImage(index, label, 0.0, target=target))
            else:
                read[index] = image, label, target
        if not read:
            return excluded
        x = torch.stack([image for image, _, _ in read.values()]).to(classifier.device)
        labels = [label for _, label, _ in read.values()]
        certificates = self._certifier.certify(classifier, x, list(read), wanted=labels)
        certified = [
            self._certified(index, image, label, target, certificate)
            for (index, (_, label, target)), image, certificate in zip(read.items(), x, certificates, strict=True)
        ]
        seconds = (time.perf_counter() - began) / len(read)
        return excluded + [replace(clean, seconds=seconds) for clean in certified]

    def _certified(
        self, index: int, image: Tensor, label: int, target: int | None, certificate: Certificate
    ) -> CleanImage:
        """An image with its certificate, and for the search if it is eligible."""
        if certificate.prediction != label or not certificate.confident:
            return CleanImage(index, label, 0.0, certificate, target=target)
        if self.targets.ranks:
            target = self.targets.among(certificate, image, index, label, self.classifier)
            certificate = replace(certificate, evaluations=certificate.evaluations + self.targets.evaluations())
        nearest = self._starting_points.near(image, label, target) if self._starting_points else None
        example = Example(index, image, label, certificate.radius, nearest, target)
        return CleanImage(index, label, 0.0, certificate, example, target=target)

    def _verify(
        self, searched_images: list[tuple[CleanImage, Finding]], verifier: Verifier
    ) -> Iterator[tuple[AttackRecord, Image | None]]:
        """The records of images whose search has finished, each as soon as it is verified, with its image."""
        for clean, finding in searched_images:
            if finding.error is not None:
                yield _failed(clean, finding), None
        searched = [(clean, finding) for clean, finding in searched_images if finding.error is None]
        for number, verified, seconds in verifier.verify_all([finding for _, finding in searched], self.classifier):
            image = None if verified.image is None else verified.image.cpu().numpy()
            yield self._record(*searched[number], verified, seconds), image

    def _record(self, clean: CleanImage, finding: Finding, verified: Verified, seconds: float) -> AttackRecord:
        """The result of an image whose search ran; seconds: of its verification."""
        certificate, confident = clean.certificate, finding.confident
        assert certificate is not None
        unverified = NOT_VERIFIED if confident is not None else NOT_FOUND
        return AttackRecord(
            clean.index,
            clean.label,
            unverified if verified.image is None else ATTACKED,
            prediction=certificate.prediction,
            expectation=certificate.votes_top / self.plan.certify_samples,
            certified_radius=certificate.radius,
            radius=verified.radius,
            radius_search=None if confident is None else confident.distance,
            adversarial_class=verified.adversarial_class,
            target=clean.target,
            iterations=finding.iterations,
            forward_evaluations=(
                certificate.evaluations + finding.forward_evaluations + verified.forward_evaluations
            ),
            backward_evaluations=finding.backward_evaluations,
            lost_gradients=finding.lost_gradients,
            verify_tries=verified.tries,
            last_try_samples=verified.samples,
            abstentions=certificate.abstentions,
            seconds=clean.seconds + finding.seconds + seconds,
        )


def _failed(clean: CleanImage, finding: Finding) -> AttackRecord:
    """The result of an image whose search failed."""
    assert clean.certificate is not None
    return AttackRecord(
        clean.index,
        clean.label,
        FAILED,
        forward_evaluations=clean.certificate.evaluations + finding.forward_evaluations,
        backward_evaluations=finding.backward_evaluations,
        target=clean.target,
        seconds=clean.seconds + finding.seconds,
        error=finding.error,
    )
