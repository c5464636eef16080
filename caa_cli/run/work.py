"""The images of an attack run on their way through certificate, search and proof."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from caa_cli.attacks.loop import Batch, Example, Finding, Search
from caa_cli.data.decoding import ImageError
from caa_cli.data.images import Images, read_example
from caa_cli.display import REFRESH_SECONDS, Bar, number
from caa_cli.errors import CaaError
from caa_cli.memory import is_out_of_memory
from caa_cli.names import VOTES
from caa_cli.plan import AttackPlan
from caa_cli.results.images import Image
from caa_cli.results.output import AttackOutput
from caa_cli.results.records import (
    ABSTAINED,
    ATTACKED,
    FAILED,
    MISCLASSIFIED,
    NOT_FOUND,
    NOT_VERIFIED,
    AttackRecord,
    summarise,
)
from caa_cli.run.access import Others
from caa_cli.run.build import build_attack, first_look
from caa_cli.run.engine import most_images
from caa_cli.smoothing.certify import Certificate, Certifier
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.verify import Verifier


@dataclass
class AttackWork:
    """One run's work. `indices` are all its images, those of earlier parts included; `output` takes the results."""

    plan: AttackPlan
    classifier: SmoothedClassifier
    images: Images
    output: AttackOutput
    bar: Bar
    indices: Sequence[int]
    clean: dict[int, tuple[Certificate, float]] = field(default_factory=dict)
    done: int = 0
    text: str = ""
    summed_up: float = 0.0

    def run(self, todo: list[int]) -> None:
        """Attacks these images; each is in `output` as soon as it is finished."""
        plan = self.plan
        self._sum_up()
        self.bar.update(self.done, self.text)
        batch = most_images(plan, self.classifier.input_shape)
        if plan.batch_size is None:
            batch = max(1, min(batch, self.classifier.search_chunk // first_look(plan)))
        attack_sigma = plan.attack_sigma or self.classifier.sigma
        search = Search(build_attack(plan), self.classifier.with_sigma(attack_sigma), batch, self._on_step)
        verifier = Verifier(
            samples=plan.verification_draws,
            alpha=plan.alpha,
            bound=plan.bound,
            seed=plan.seed,
            finish=plan.finish,
            probe_samples=plan.selection_draws,
            search_sigma=attack_sigma,
        )
        try:
            for finding in search.run(self._eligible(todo)):
                self._prove(finding, verifier)
        except (RuntimeError, MemoryError) as error:
            # The engine copes with a chunk that is too large; this is the state of too many images at once.
            if not is_out_of_memory(error):
                raise
            hint = "use a smaller --batch-size" if batch > 1 else "free some of it, or use fewer --iterations"
            raise CaaError(f"{self.classifier.device} is out of memory", hint) from error

    def _eligible(self, todo: list[int]) -> Iterator[Example]:
        """Clean images one by one; those that are no target are recorded on the way."""
        plan = self.plan
        others = Others(self.images) if plan.gradient == VOTES else None
        certifier = Certifier(plan.selection_draws, plan.certification_draws, plan.alpha, plan.bound, plan.seed)
        for index in todo:
            began = time.perf_counter()
            try:
                image, label = read_example(self.images, index, self.classifier.num_classes)
            except ImageError as error:
                self._record(AttackRecord(index, self.images.label(index), FAILED, error=error.problem), None)
                continue
            image = image.to(self.classifier.device)
            (clean,) = certifier.certify(self.classifier, image[None], [index], wanted=[label])
            if clean.prediction == label and clean.confident:
                nearest = others.near(image, label) if others else None
                self.clean[index] = clean, time.perf_counter() - began
                yield Example(index, image, label, clean.radius, nearest)
                continue
            record = AttackRecord(
                index,
                label,
                MISCLASSIFIED if clean.confident else ABSTAINED,
                prediction=clean.prediction if clean.confident else None,
                forward_evaluations=clean.evaluations,
                abstentions=clean.abstentions,
                seconds=time.perf_counter() - began,
            )
            self._record(record, None)

    def _prove(self, finding: Finding, verifier: Verifier) -> None:
        began = time.perf_counter()
        proved = verifier.verify(finding, self.classifier)
        clean, seconds = self.clean.pop(finding.example.index)
        looked = finding.confident
        unproved = NOT_VERIFIED if looked is not None else NOT_FOUND
        record = AttackRecord(
            finding.example.index,
            finding.example.label,
            unproved if proved.image is None else ATTACKED,
            prediction=clean.prediction,
            expectation=clean.votes_top / self.plan.certification_draws,
            certified_radius=clean.radius,
            radius=proved.radius,
            radius_search=None if looked is None else looked.distance,
            adversarial_class=proved.adversarial_class,
            iterations=finding.iterations,
            forward_evaluations=clean.evaluations + finding.forward_evaluations + proved.forward_evaluations,
            backward_evaluations=finding.backward_evaluations,
            lost_gradients=finding.lost_gradients,
            verify_tries=proved.tries,
            abstentions=clean.abstentions,
            seconds=seconds + finding.seconds + time.perf_counter() - began,
        )
        self._record(record, None if proved.image is None else proved.image.cpu().numpy())

    def _record(self, record: AttackRecord, image: Image | None) -> None:
        self.output.add(record, image)
        self.done += 1
        if time.monotonic() - self.summed_up > REFRESH_SECONDS or self.done == len(self.indices):
            self._sum_up()
        self.bar.update(self.done, self.text)

    def _sum_up(self) -> None:
        self.summed_up = time.monotonic()
        records = self.output.of(self.indices)
        summary = summarise(records, 0.0)
        self.done = len(records)
        if summary.eligible:
            self.text = (
                f"{100 * (summary.success_rate or 0):.0f}% attacked · median radius "
                f"{number(summary.median_radius)} · {number(summary.median_percent_over_certified, 0)} %-C"
            )

    def _on_step(self, state: Batch) -> None:
        if len(state) == 1:
            now = f"image {int(state.indices[0])}: step {int(state.iteration[0])}"
        else:
            now = f"{len(state)} images: steps {int(state.iteration.min())}–{int(state.iteration.max())}"
        self.bar.update(self.done, self.text, now)
