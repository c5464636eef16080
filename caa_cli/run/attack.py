"""`caa attack` from the plan to the result file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.display import Bar, Display, Rows
from caa_cli.results.class_names import names_of_classes
from caa_cli.results.fields import attack_fields
from caa_cli.results.model_files import model_digest
from caa_cli.results.records import AttackRecord, AttackSummary, summarise
from caa_cli.results.requirements import Requirement
from caa_cli.results.store.attack_output import AttackOutput
from caa_cli.results.store.images import Image
from caa_cli.run.attack_pipeline import AttackPipeline
from caa_cli.run.batch_size import search_bytes, searched_together
from caa_cli.run.describe import attack_rows, evaluations
from caa_cli.run.drawing import drawing
from caa_cli.run.dry_run import Forecast
from caa_cli.run.feasibility import attack_warnings, gradient_warnings
from caa_cli.run.gate import Gate
from caa_cli.run.image_run import ImageRun
from caa_cli.run.progress import AttackProgress
from caa_cli.run.registry import build_attack, search_dtype_of
from caa_cli.run.targets import Targets
from caa_cli.run.threat_model import Access, find_surrogate, open_access
from caa_cli.runtime.device import resolve_device
from caa_cli.runtime.sharding import Shard
from caa_cli.runtime.words import counted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.pace import measure_pace
from caa_cli.tuning.precision import advise_precision


@dataclass
class AttackRun(ImageRun[AttackPlan, AttackRecord]):
    """One run of an attack. classifiers: those that are set up already, by the checkpoint's sha256 and the access of
    the search. Runs with the same settings of the model share them, so that chunk sizes are chosen once."""

    command = "attack"

    output: AttackOutput
    classifiers: dict[str, SmoothedClassifier] = field(default_factory=dict, kw_only=True)
    attack: Attack[Any] = field(init=False)
    access: Access = field(init=False)
    targets: Targets = field(init=False)
    search_dtype: torch.dtype | None = field(init=False)  # of its own copy of the weights

    def __post_init__(self) -> None:
        self.access = open_access(self.plan, self.session.card, self.session.images, self.display)
        self.attack = build_attack(self.plan)
        self.targets = self._open_targets()
        self.surrogate = self.access.surrogate
        self.search_dtype = search_dtype_of(self.plan, self.session.device)

    def _open_targets(self) -> Targets:
        """The targets of the plan, checked against the images of all shards. Raises UsageError."""
        plan, images = self.plan, self.session.images
        targets = Targets.of(plan, len(images), self.session.classes)
        targets.check(plan, images, replace(plan, shard=Shard()).indices(len(images)))
        return targets

    def rows(self) -> Rows:
        return [*self.session.describe(), *attack_rows(self.plan, self.attack, self.session.classes)]

    def warn_if_impossible(self) -> None:
        for warning in attack_warnings(self.plan, self.attack, self.session.card.num_classes):
            self.display.warn(warning)

    def forecast(self, classifier: SmoothedClassifier) -> Forecast:
        plan, cost, images = self.plan, self.access.cost, len(self.session.indices)
        choice, classes = self.targets.evaluations(), self.session.card.num_classes
        together = min(images, searched_together(plan, self.attack, classifier.search))
        reserve = search_bytes(plan, self.attack, self.access, self.session.card.input_shape, together)
        return Forecast(
            measure_pace(classifier, search=True),
            evaluations(plan, self.attack, cost, images, classes, choice=choice),
            evaluations(plan, self.attack, cost, images, classes, typical=True, choice=choice),
            reserve + classifier.search.waiting_bytes(self.attack.samples_a_step()[1]),
        )

    def load_classifier(self) -> SmoothedClassifier:
        session, access = self.session, self.access
        name = f"{model_digest(session.base.record)} {access.name} {self.plan.search_dtype}"
        if name not in self.classifiers:
            reserve = search_bytes(self.plan, self.attack, access, session.card.input_shape)
            classifier = session.load_classifier(self.display, access, self.search_dtype, reserve)
            self.classifiers[name] = classifier
            advise_precision(classifier, self.plan, access.tuning_name(session.base.arch), self.display)
            for warning in gradient_warnings(classifier.search):
                self.display.warn(warning)
        return self.classifiers[name]

    def begin(self) -> None:
        self.output.begin(self.session.card.input_shape)
        if again := len(self.output.without_image):
            self.display.note(f"attacking {counted(again, 'image')} again, whose adversarial images were not kept")

    def process(self, classifier: SmoothedClassifier, todo: list[int], bar: Bar) -> None:
        indices = self.session.indices
        progress = AttackProgress(bar, len(indices), lambda: self.output.of(indices))
        images, targets = self.session.images, self.targets
        pipeline = AttackPipeline(self.plan, self.attack, classifier, images, progress.show_step, targets)
        for record, image in pipeline.run(todo):
            self.output.add(record, image)
            progress.count()

    def summarise(self, records: Sequence[AttackRecord], seconds: float) -> AttackSummary:
        return summarise(records, seconds)

    def write_side_files(self, records: Sequence[AttackRecord]) -> None:
        self.output.finish_images(list(records), self._draw)

    def _draw(self, path: Path, adversarial: Mapping[int, Image], records: list[AttackRecord]) -> None:
        from caa_cli.report.examples import draw_examples

        images = self.session.images
        names = names_of_classes(records, self.session.classes.names)
        with drawing("--figure", path, self.display):
            draw_examples(path, lambda index: images.image(index).numpy(), adversarial, records, names)


def check_search(plan: AttackPlan) -> None:
    """Raise CaaError where the search of a plan can't begin, as far as that is known without reading a model."""
    find_surrogate(plan)
    search_dtype_of(plan, resolve_device(plan.device, plan.shard.local))


def run_attack(
    plan: AttackPlan,
    display: Display,
    resume_command: str,
    requirements: Sequence[Requirement] = (),
    images_again: bool = True,
    classifiers: dict[str, SmoothedClassifier] | None = None,
) -> int:
    """Runs a plan as typed; returns the exit code. Raises CaaError for whatever the user can mend.

    images_again: whether images that a resumed run lacks are worth attacking those examples again. classifiers: those
    of other runs, see `AttackRun`.
    """
    output, gate = AttackOutput(plan, images_again), Gate(display, requirements)
    shared = {} if classifiers is None else classifiers
    return AttackRun.open(plan, output, attack_fields(), gate, resume_command, classifiers=shared).execute()
