"""A denoiser to be trained, in front of a classifier that never changes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from torch import nn

from caa_cli import __version__
from caa_cli.config.methods import Denoiser as Settings
from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.images import Images
from caa_cli.display import Rows
from caa_cli.errors import CaaError
from caa_cli.models.base_classifier import BaseClassifier, ModelFiles, resolve_model
from caa_cli.models.checkpoint import find_checkpoint, inspect_weights
from caa_cli.models.composite import DenoisedClassifier
from caa_cli.models.denoisers.card import DenoiserCard, FrozenClassifier
from caa_cli.models.denoisers.denoiser import Denoiser
from caa_cli.models.denoisers.dncnn import DnCNN
from caa_cli.models.denoisers.ffdnet import FFDNet
from caa_cli.models.resolve import Overrides
from caa_cli.models.safetensors_file import tensors_bytes
from caa_cli.runtime.words import counted
from caa_cli.training.trainee import Trainee, count_parameters


class NewDenoiser(Trainee):
    """A denoiser; with its classifier, if it has one, it is smoothed.

    card: says of the classifier what it is.
    """

    denoises = True

    def __init__(
        self, network: nn.Module, card: DenoiserCard, classifier: nn.Module | None = None, num_classes: int = 0
    ) -> None:
        self.network, self.card, self.num_classes = network, card, num_classes
        self.frozen = None if classifier is None else classifier.eval().requires_grad_(False)

    @property
    def base_classifier(self) -> nn.Module | None:
        return None if self.frozen is None else DenoisedClassifier(self.network, self.frozen)

    def describe(self) -> Rows:
        card, behind = self.card, self.card.classifier
        weights = counted(count_parameters(self.network), "weight", ",")
        about = f"{counted(card.depth, 'convolution')} of {counted(card.width, 'channel')}, {weights}"
        classifier = "none" if behind is None else f"{behind.arch} from {behind.path} (sha256 {behind.sha256[:12]})"
        return [("denoiser", f"{card.arch}, {about}"), ("classifier", classifier)]

    def content(self, training: dict[str, Any]) -> bytes:
        return tensors_bytes(self.network, replace(self.card, training=training).to_metadata())

    def identity(self) -> dict[str, Any]:
        behind = self.card.classifier
        return {"classifier_sha256": None if behind is None else behind.sha256}


def new_denoiser(plan: TrainPlan, images: Images) -> NewDenoiser:
    """An untrained denoiser for these images, in front of the plan's classifier.

    Raises CaaError if the classifier can't be read, or does not take such images.
    """
    settings = plan.settings
    assert isinstance(settings, Settings)
    card = DenoiserCard(
        arch=plan.arch,
        channels=images.input_shape[0],
        depth=settings.depth,
        width=settings.width,
        sigma=plan.sigma,
        dataset=images.name,
        tool_version=__version__,
    )
    network = _built(card)
    if plan.classifier is None:
        return NewDenoiser(network, card)
    try:
        base, notes = _behind(network, plan, images)
        composite = base.build()
    except CaaError as error:
        error.problem, error.hint = _as_classifier(error.problem), _as_classifier(error.hint or "") or None
        raise
    assert isinstance(composite, DenoisedClassifier)
    (member,) = base.members
    behind = FrozenClassifier(str(member.weights.path), member.weights.sha256, member.card.arch)
    denoiser = NewDenoiser(network, replace(card, classifier=behind), composite.classifier, base.card.num_classes)
    denoiser.notes = tuple(map(_as_classifier, notes))
    return denoiser


def classifier_digest(plan: TrainPlan) -> str | None:
    """The sha256 of the plan's classifier; None without one. Raises CaaError if it can't be read."""
    if plan.classifier is None:
        return None
    return inspect_weights(find_checkpoint(plan.classifier), plan.trust_checkpoint).sha256


def _built(card: DenoiserCard) -> nn.Module:
    if card.arch == "ffdnet":
        return FFDNet(card.sigma, card.channels, card.depth, card.width)
    return DnCNN(card.channels, card.depth, card.width)


def _behind(network: nn.Module, plan: TrainPlan, images: Images) -> tuple[BaseClassifier, list[str]]:
    """(the plan's classifier behind this denoiser, notes for the user): what an attack would make of the two."""
    assert plan.classifier is not None
    denoiser = Denoiser(family=plan.arch, arch=plan.arch, channels=images.input_shape[0], build=lambda sigma: network)
    files = replace(ModelFiles.read([plan.classifier], trust=plan.trust_checkpoint), denoiser=denoiser)
    overrides = Overrides(plan.classifier_arch, plan.sigma, plan.classifier_mean, plan.classifier_std)
    return resolve_model(
        files, overrides, images.name, images.input_shape, images.num_classes, size=plan.classifier_size
    )


def _as_classifier(text: str) -> str:
    """A message about a checkpoint, with the options that a classifier has in a training."""
    text = text.partition(" --denoiser ")[0]
    text = re.sub(r"--(?=(?:arch|mean|std|normalisation)\b)", "--classifier-", text)
    return re.sub(r"--checkpoint\b", "--classifier", text)
