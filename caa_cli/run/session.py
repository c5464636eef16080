"""The session of a run: its resolved plan, the checkpoint of its model, and the images of its data set.

`open_session` reads the files and resolves the plan, and nothing else of the plan as typed is kept;
`Session.load_classifier` sets the model up on its device, when the run is known to have work for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from caa_cli.config.datasets import DEMO
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.targets import Classes
from caa_cli.data.datasets import open_dataset
from caa_cli.data.files import ImageFiles
from caa_cli.data.images import Images, ImageSet, readable
from caa_cli.display import Display, Rows
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier
from caa_cli.models.base_classifier import BaseClassifier, ModelFiles, resolve_model
from caa_cli.models.card import ModelCard
from caa_cli.models.layouts import layout_of, normalisations_to_try, preset_of
from caa_cli.models.preprocessing import Preprocessing
from caa_cli.models.resolve import Overrides
from caa_cli.results.model_files import model_digest
from caa_cli.results.store.environment import environment
from caa_cli.run.classes import classes_of
from caa_cli.run.describe import base_classifier_rows
from caa_cli.run.missing_settings import check_settings
from caa_cli.run.normalisation_check import Plausibility
from caa_cli.run.threat_model import Access
from caa_cli.runtime.device import describe_device, numeric_mode, open_device, opening, resolve_device
from caa_cli.runtime.memory import is_out_of_memory, limit_device
from caa_cli.runtime.sharding import Shard
from caa_cli.runtime.words import counted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.tuning.choose import choose_chunks

P = TypeVar("P", bound=ModelPlan)


@dataclass(frozen=True)
class Session(Generic[P]):
    """plan: the resolved one. base: what checkpoints and command line say of the model together.

    classes: what they are called.  indices: of the images to work on. device, dtype: of the model, which is not
    there yet.
    """

    plan: P
    base: BaseClassifier
    images: Images
    classes: Classes
    indices: Sequence[int]
    device: torch.device
    dtype: torch.dtype

    @property
    def card(self) -> ModelCard:
        """The card of the whole model."""
        return self.base.card

    def describe(self, bounds: str | None = None) -> Rows:
        """Rows for the display before anything runs; bounds: in words, where they aren't those of --bound."""
        plan = self.plan
        bounds = f"{plan.certificate} certificate, {bounds or f'{plan.bound} bounds at α = {plan.alpha:g}'}"
        shard = f", {plan.shard}" if plan.shard.count > 1 else ""
        chosen = (
            [("shard", f"{plan.shard.index} of {plan.shard.count}: {plan.shard.chosen}")] if plan.shard.chosen else []
        )
        return [
            *chosen,
            *base_classifier_rows(self.base, (plan.checkpoint, *plan.members)),
            ("smoothing", f"σ = {self.card.sigma:g}, {bounds}"),
            ("images", f"{len(self.indices)} of {self.images.name} {self.images.split} ({len(self.images)}){shard}"),
            ("device", f"{describe_device(self.device)}, {plan.dtype}"),
        ]

    def header(self, command: str, surrogate: dict[str, Any] | None = None) -> dict[str, Any]:
        """What a result says of the run but for `environment.engine`, which is known once the model is set up.

        surrogate: the checkpoint of its gradients.
        """
        plan, checkpoint = self.plan, self.base.record
        return {
            "command": command,
            "config": plan.config(),
            "fingerprint": plan.fingerprint(f"{model_digest(checkpoint)}{surrogate['sha256'] if surrogate else ''}"),
            "environment": environment(describe_device(self.device), torch.get_num_threads()),
            "checkpoint": checkpoint,
            **({"surrogate_model": surrogate} if surrogate else {}),
            "images": {"count": len(self.images), "files_sha256": self.images.files_sha256},
            "shard": {"index": plan.shard.index, "count": plan.shard.count},
        }

    def load_classifier(
        self,
        display: Display,
        access: Access | None = None,
        search_dtype: torch.dtype | None = None,
        reserve: int = 0,
    ) -> SmoothedClassifier:
        """The smoothed model on its device, tried out on the first readable image, with its chunk sizes chosen.

        access: what a search sees of it; None: no search. search_dtype: of the search's copy of the weights; None: it
        has none. reserve: bytes that the run holds besides the passes.
        """
        model = self.base.build()
        open_device(self.device)
        # Under a memory limit begin with single samples, whose memory is measured first.
        chunks = {"votes_chunk": 1, "gradient_chunk": 1} if self.plan.max_memory is not None else {}
        try:
            classifier = SmoothedClassifier(
                model,
                sigma=self.card.sigma or 0.0,
                num_classes=self.card.num_classes,
                input_shape=self.card.input_shape,
                device=self.device,
                dtype=self.dtype,
                gradients=WhiteBox() if access is None else access.gradients(),
                **chunks,
            )
            if search_dtype is not None:
                classifier = classifier.searched_in(search_dtype)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise CaaError(
                f"the model does not fit in what is free of the memory of {self.device}",
                "wait for others to free it, raise --max-memory, or choose another device with --device cpu",
            ) from error
        classifier.notify = display.warn
        self._try_out(classifier)
        arch = self.base.arch if access is None else access.tuning_name(self.base.arch)
        gradients = access is not None and access.cost.differentiates
        choose_chunks(classifier, self.plan, arch, gradients, reserve, display)
        self._check_normalisation(classifier, display)
        return classifier

    def _check_normalisation(self, classifier: SmoothedClassifier, display: Display) -> None:
        """Warn of a normalisation that is probably wrong, unless the checkpoint itself states it."""
        models = list(_members(classifier.model))
        for member, model in zip(self.base.members, models, strict=True):
            weights, stored, card = member.weights, member.weights.card, member.card
            if stored is not None and (stored.mean, stored.std) == (card.mean, card.std):
                continue
            layout = layout_of(weights)
            presets = normalisations_to_try(layout, self.images.name, self.images.input_shape[0])
            alternatives = [name for name in presets if name != preset_of(card.mean, card.std)]
            warning = Plausibility(classifier, model, self.images, alternatives).warning()
            if warning is not None:
                display.warn(warning if len(models) == 1 else f"{weights.path}: {warning}")

    def _try_out(self, classifier: SmoothedClassifier) -> None:
        """One small chunk before the real work: does the model give logits at all?

        Where no image can be read there is nothing to try: each will be recorded as failed.
        """
        index, image = next(readable(self.images, self.indices), (0, None))
        if image is None:
            return
        try:
            votes = classifier.keyed_votes(image.to(classifier.device)[None], [Key(0, index, Purpose.TUNING)], 8)
        except RuntimeError as error:
            raise CaaError(
                f"the model can't take the images of {self.images.name}: {error}",
                "check --arch and --dataset; the checkpoint may belong to another data set",
            ) from error
        if int(votes.sum()) == 0:
            raise CaaError(
                "the model returns NaN for every noise sample of the first image",
                "check the normalisation (--mean, --std), or use --dtype float32; the weights themselves are finite",
            )


def open_session(plan: P, display: Display) -> Session[P]:
    """The session of a plan as typed. Raises CaaError for whatever doesn't fit."""
    device = resolve_device(plan.device, plan.shard.local)
    dtype = numeric_mode(plan.dtype, device)
    if plan.max_memory is not None:
        with opening(device):
            limit_device(device, plan.max_memory)
    files = ModelFiles.read(
        (plan.checkpoint, *plan.members), plan.denoiser, plan.denoiser_arch, plan.trust_checkpoint
    )
    dataset = _dataset(plan, files)
    check_settings(plan, files, dataset)
    assert dataset is not None
    image_size = files.image_size(dataset, plan.arch) if plan.image_size is None else plan.image_size
    images = open_dataset(
        dataset, plan.data_dir, plan.split, image_size=image_size, download=plan.download, dry_run=plan.dry_run
    )
    images, resizing = _resized(images, files.preprocessing(plan.arch))
    overrides = Overrides(plan.arch, plan.sigma, plan.mean, plan.std)
    base, notes = resolve_model(
        files, overrides, dataset, images.input_shape, images.num_classes, plan.ensemble, plan.classifier_size
    )
    for text in (*notes, *images.notes):
        display.warn(text)
    if plan.data_dir is not None and dataset == DEMO:
        display.warn(
            f"--data-dir {plan.data_dir} is not used: the images of demo come with caa; --dataset names others"
        )
    classes = classes_of(images, base.card)
    resolved = plan.resolve(
        base.card.sigma,
        **{name: base.common(name) for name in ("mean", "std")},
        arch=base.card.arch,
        ensemble=base.ensemble,
        classifier_size=base.size,
        dataset=images.name,
        image_size=image_size,
        **resizing,
    ).with_classes(classes)
    indices = resolved.indices(len(images))
    # With more automatic shards than images some shards are empty, which is no error.
    if not indices and (plan.shard.chosen is None or not replace(resolved, shard=Shard()).indices(len(images))):
        raise UsageError(
            f"no image is left: {images.name} {images.split} has {counted(len(images), 'image')}",
            "lower --skip, --every or the number of shards",
        )
    return Session(resolved, base, images, classes, indices, device, dtype)


def _members(model: nn.Module) -> Iterator[NormalisedClassifier]:
    """The classifiers with a normalisation of ours; whatever is inside one of them is its own affair."""
    if isinstance(model, NormalisedClassifier):
        yield model
    else:
        for part in model.children():
            yield from _members(part)


def _resized(
    images: ImageSet | ImageFiles, prepared: Preprocessing | None
) -> tuple[ImageSet | ImageFiles, dict[str, Any]]:
    """(the images, resized as for the network if they are of its size; the settings that say so)."""
    if prepared is None or not isinstance(images, ImageFiles) or images.recipe.resize is None:
        return images, {}
    if images.input_shape[1:] != (prepared.size, prepared.size):
        return images, {}
    resizing = {"image_resize": prepared.resize, "interpolation": prepared.interpolation}
    return images.prepared(prepared.resize, prepared.interpolation), resizing


def _dataset(plan: ModelPlan, files: ModelFiles) -> str | None:
    """The name of the data set: the plan's, or the checkpoint's; None where neither says it."""
    if plan.dataset is not None:
        return plan.dataset
    if plan.checkpoint == "demo" and plan.data_dir is None:
        return DEMO
    return files.dataset
