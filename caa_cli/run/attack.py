"""`caa attack` from the plan to the result file."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from caa_cli.data.datasets import ImageSet, open_dataset
from caa_cli.device import describe_device, resolve_device
from caa_cli.display import Display
from caa_cli.errors import DONE, INTERRUPTED, PARTIAL, CaaError, UsageError
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights, build_model, read_weights, resolve
from caa_cli.models.resolve import Said, resolve_card
from caa_cli.plan import AttackPlan, compared_keys
from caa_cli.results.environment import environment
from caa_cli.results.images import Image
from caa_cli.results.output import AttackOutput
from caa_cli.results.records import FAILED, AttackRecord, summarise
from caa_cli.run.describe import describe, estimate, most_evaluations, summary_rows
from caa_cli.run.work import AttackWork
from caa_cli.signals import termination_interrupts, uninterrupted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.tune import tune_chunks


@dataclass
class AttackRun:
    """One run. `again` is the command that would repeat it, for the advice after an interruption."""

    plan: AttackPlan
    display: Display
    again: str
    began: float = field(default_factory=time.perf_counter)

    def execute(self) -> int:
        """Runs it all; returns the exit code. Raises CaaError for whatever the user can mend."""
        plan = self.plan
        output = AttackOutput(plan.output, plan.save_adversarial, plan.figure)
        if not plan.dry_run:
            output.check(plan.resume, plan.overwrite)
        if plan.figure is not None:
            from caa_cli.results.figure import check_figure

            check_figure(plan.figure)
        device = resolve_device(plan.device)
        weights, card, images = self._load()
        self.plan = plan = _resolved(plan, card, images)
        indices = plan.indices(len(images))
        if not indices:
            raise UsageError(
                f"no image is left: {images.name} {images.split} has {len(images)} images",
                "lower --skip, or the number of shards",
            )
        self.display.plan("caa attack", describe(plan, card, weights, images, indices, device))
        if plan.dry_run:
            self.display.plan(
                "at most, and about what it takes on smoothed MNIST models", estimate(plan, len(indices))
            )
            self.display.document(
                {"config": plan.config(), "images": len(indices), **most_evaluations(plan, len(indices))}
            )
            return DONE
        classifier = SmoothedClassifier(
            build_model(weights, card),
            sigma=plan.sigma or 0.0,
            num_classes=card.num_classes,
            input_shape=card.input_shape,
            device=device,
            dtype=getattr(torch, plan.dtype),
        )
        _check_outputs(classifier, images, indices[0])
        self._choose_chunks(classifier)
        header = {
            "command": "attack",
            "config": plan.config(),
            "environment": environment(describe_device(device), torch.get_num_threads()),
            "checkpoint": {
                "path": str(weights.path),
                "sha256": weights.sha256,
                "arch": card.arch,
                "dataset": card.dataset,
                "sigma": card.sigma,
            },
            "shard": {"index": plan.shard.index, "count": plan.shard.count},
        }
        have = output.begin(header, compared_keys(plan), card.input_shape, plan.resume)
        if have:
            self.display.note(f"going on with {output.journal.path}: {len(have)} images are done already")
        interrupted = self._attack_all(classifier, images, indices, output)
        return self._finish(output, images, indices, interrupted)

    def _load(self) -> tuple[Weights, ModelCard, ImageSet]:
        plan = self.plan
        weights = read_weights(resolve(plan.checkpoint))
        dataset = plan.dataset or (weights.card.dataset if weights.card else None)
        if plan.dataset is None and plan.checkpoint == "demo" and plan.data_dir is None:
            dataset = "demo"
        if dataset is None:
            raise UsageError(
                f"{weights.path} does not say which data set it was trained on",
                "add --dataset, for instance --dataset mnist --data-dir DIR",
            )
        images = open_dataset(dataset, plan.data_dir, plan.split)
        said = Said(plan.arch, plan.sigma, plan.mean, plan.std)
        card, notes = resolve_card(weights, said, dataset, images.input_shape, images.num_classes)
        for text in notes:
            self.display.warn(text)
        return weights, card, images

    def _choose_chunks(self, classifier: SmoothedClassifier) -> None:
        if self.plan.chunk_size is not None:
            classifier.votes_chunk = classifier.gradient_chunk = self.plan.chunk_size
        else:
            tune_chunks(classifier)
        self.display.note(
            f"chunks of {classifier.votes_chunk} samples for votes, {classifier.gradient_chunk} for gradients"
        )

    def _attack_all(
        self, classifier: SmoothedClassifier, images: ImageSet, indices: range, output: AttackOutput
    ) -> bool:
        """Works through the images; returns whether it was interrupted. Finished ones are in `output`."""
        plan = self.plan
        todo = [index for index in indices if index not in output.records]
        with self.display.bar("images", len(indices), len(indices) - len(todo)) as bar, termination_interrupts():
            work = AttackWork(plan, classifier, images, output, bar, indices)
            work.show()
            try:
                work.run(todo)
            except KeyboardInterrupt:
                return True
        return False

    def _finish(self, output: AttackOutput, images: ImageSet, indices: range, interrupted: bool) -> int:
        records = [output.records[index] for index in indices if index in output.records]
        failed = any(record.outcome == FAILED for record in records)
        status = "interrupted" if interrupted else "partial" if failed else "complete"
        summary = summarise(records, time.perf_counter() - self.began)

        def draw(path: Path, found: dict[int, Image], attacked: list[AttackRecord]) -> None:
            from caa_cli.results.figure import draw_examples

            originals = {index: images.image(index).numpy() for index in found}
            draw_examples(path, originals, found, attacked)

        with uninterrupted():
            document = output.finish(status, summary, indices, draw)
        self.display.document(document)
        self.display.result("result", summary_rows(summary, self.plan))
        if interrupted:
            self.display.warn(
                f"interrupted: {len(records)} of {len(indices)} images are done and saved in {output.output}"
            )
            self.display.warn(f"go on with: {self.again}")
            return INTERRUPTED
        return PARTIAL if failed else DONE


def _resolved(plan: AttackPlan, card: ModelCard, images: ImageSet) -> AttackPlan:
    """The plan with everything that the checkpoint had to say filled in, as the results record it."""
    return replace(
        plan,
        arch=card.arch,
        sigma=card.sigma,
        mean=card.mean,
        std=card.std,
        dataset=images.name,
        certify_samples=plan.certification_draws,
        verify_samples=plan.verification_draws,
    )


def _check_outputs(classifier: SmoothedClassifier, images: ImageSet, index: int) -> None:
    """One chunk through the model before the real work: does it give logits at all?"""
    samples = 64
    image = images.image(index).to(classifier.device)[None]
    try:
        votes = classifier.votes(image, [Key(0, index, Purpose.TUNING)], samples)
    except RuntimeError as error:
        raise CaaError(
            f"the model can't take the images of {images.name}: {error}",
            "check --arch and --dataset; the checkpoint may belong to another data set",
        ) from error
    if int(votes.sum()) == 0:
        raise CaaError(
            "the model returns NaN for every noise sample of the first image",
            "check the normalisation (--mean, --std), or use --dtype float32; the weights themselves are finite",
        )
