"""The pipeline of an attack run: certificate → search → verification, of the images that a batch holds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
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
        search = Search(self.attack, self.classifier.search.with_sigma(sigma), batch, self.on_step)
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
        certify = self._certifier()
        waiting, searched = deque(todo), dict[int, CleanImage]()
        while waiting or search.busy:
            joining: list[Example] = []
            while waiting and len(joining) < search.free:
                together = certified_together(self.classifier.votes_chunk, self.plan.selection_samples)
                count = min(len(waiting), search.free - len(joining), together)
                for clean in certify([waiting.popleft() for _ in range(count)]):
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

    def _certifier(self) -> Callable[[list[int]], list[CleanImage]]:
        """A function that reads and certifies the images of a few indices; those without a certificate come first."""
        plan, targets = self.plan, self.targets
        starting_points = None if self.classifier.differentiates else StartingPoints(self.images)
        certifier = Certifier(
            plan.selection_samples, plan.certify_samples, plan.alpha, plan.bound, plan.seed, plan.certificate
        )

        def certify(indices: list[int]) -> list[CleanImage]:
            began = time.perf_counter()
            excluded, read = list[CleanImage](), dict[int, tuple[Tensor, int, int | None]]()
            for index in indices:
                try:
                    image, label = read_example(self.images, index, self.classifier.num_classes)
                except ImageError as error:
                    excluded.append(CleanImage(index, self.images.label(index), 0.0, error=error.problem))
                    continue
                target = targets.before(index, label, self.classifier.num_classes)
                if target == label:
                    excluded.append(CleanImage(index, label, 0.0, target=target))
                else:
                    read[index] = image, label, target
            if not read:
                return excluded
            x = torch.stack([image for image, _, _ in read.values()]).to(self.classifier.device)
            certified = list[CleanImage]()
            certificates = certifier.certify(
                self.classifier, x, list(read), wanted=[label for _, label, _ in read.values()]
            )
            for index, image, certificate in zip(read, x, certificates, strict=True):
                _, label, target = read[index]
                clean, example = certificate, None
                if clean.prediction == label and clean.confident:
                    if targets.ranks:
                        target = targets.among(clean, image, index, label, self.classifier)
                        clean = replace(clean, evaluations=clean.evaluations + targets.evaluations())
                    nearest = starting_points.near(image, label, target) if starting_points else None
                    example = Example(index, image, label, clean.radius, nearest, target)
                certified.append(CleanImage(index, label, 0.0, clean, example, target=target))
            seconds = (time.perf_counter() - began) / len(read)
            return excluded + [replace(clean, seconds=seconds) for clean in certified]

        return certify

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
