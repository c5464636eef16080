"""A denoiser to be trained, in front of a classifier that stays as it is."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any

from torch import nn

from caa_cli import __version__
from caa_cli.config.methods import Denoiser
from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.images import Images
from caa_cli.display import Rows
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights, find_checkpoint, read_weights
from caa_cli.models.checkpoint_file import read_file
from caa_cli.models.denoised import DenoisedClassifier
from caa_cli.models.denoisers.card import DenoiserCard, FrozenClassifier, denoiser_bytes
from caa_cli.models.denoisers.denoiser import DenoiserFile
from caa_cli.models.denoisers.dncnn import DnCNN
from caa_cli.models.denoisers.ffdnet import FFDNet
from caa_cli.models.denoisers.read import recognise
from caa_cli.models.load import build_model
from caa_cli.models.resolve import Overrides, resolve_card
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
        about = f"{card.depth} convolutions of {card.width} channels, {count_parameters(self.network):,} weights"
        classifier = "none" if behind is None else f"{behind.arch} from {behind.path} (sha256 {behind.sha256[:12]})"
        return [("denoiser", f"{card.arch}, {about}"), ("classifier", classifier)]

    def content(self, training: dict[str, Any]) -> bytes:
        return denoiser_bytes(self.network, replace(self.card, training=training))

    def identity(self) -> dict[str, Any]:
        behind = self.card.classifier
        return {"classifier_sha256": None if behind is None else behind.sha256}


def new_denoiser(plan: TrainPlan, images: Images) -> NewDenoiser:
    """An untrained denoiser for these images, before the plan's classifier.

    Raises CaaError if the classifier can't be read, or does not take such images.
    """
    settings = plan.settings
    assert isinstance(settings, Denoiser)
    channels = images.input_shape[0]
    card = DenoiserCard(
        arch=plan.arch,
        channels=channels,
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
        weights, model, of_model, notes = _read_classifier(plan, images)
    except CaaError as error:
        raise type(error)(_as_classifier(error.problem), _as_classifier(error.hint or "") or None) from error
    behind = FrozenClassifier(str(weights.path), weights.sha256, of_model.arch)
    denoiser = NewDenoiser(network, replace(card, classifier=behind), model, of_model.num_classes)
    denoiser.notes = tuple(map(_as_classifier, notes))
    return denoiser


def _built(card: DenoiserCard) -> nn.Module:
    if card.arch == "ffdnet":
        return FFDNet(card.sigma, card.channels, card.depth, card.width)
    return DnCNN(card.channels, card.depth, card.width)


def classifier_digest(plan: TrainPlan) -> str | None:
    """The sha256 of the plan's classifier; None without one. Raises CaaError if it can't be read."""
    if plan.classifier is None:
        return None
    content, _ = read_file(find_checkpoint(plan.classifier))
    return hashlib.sha256(content).hexdigest()


def _read_classifier(plan: TrainPlan, images: Images) -> tuple[Weights, NormalisedClassifier, ModelCard, list[str]]:
    """(its file, the classifier, what it is, notes for the user)"""
    weights = read_weights(find_checkpoint(str(plan.classifier)), plan.trust_checkpoint)
    denoiser = recognise(DenoiserFile(path=weights.path, sha256=weights.sha256, weights=weights))
    if denoiser is not None:
        raise UsageError(
            f"--classifier {plan.classifier} is a denoiser ({denoiser.arch}), not a classifier",
            "name the checkpoint of the classifier that is to be defended",
        )
    overrides = Overrides(plan.classifier_arch, plan.sigma, plan.classifier_mean, plan.classifier_std)
    card, notes = resolve_card(
        weights, overrides, images.name, images.input_shape, images.num_classes, plan.trust_checkpoint
    )
    return weights, build_model(weights, card), card, notes


def _as_classifier(text: str) -> str:
    """A message about a checkpoint, with the options that a classifier has in a training."""
    return re.sub(r"--(?:checkpoint\b|(?=(?:arch|mean|std|normalisation)\b))", _option, text)


def _option(match: re.Match[str]) -> str:
    return "--classifier" if match[0] == "--checkpoint" else "--classifier-"
