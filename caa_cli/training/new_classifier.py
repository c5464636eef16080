"""A classifier to be trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from caa_cli import __version__
from caa_cli.config.choices import NORMALISATIONS
from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.images import Images
from caa_cli.display import Rows
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier, build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import checkpoint_bytes, read_back
from caa_cli.models.contents import oddity
from caa_cli.models.layouts import refuse_other_channels
from caa_cli.models.limits import last_line, unusable
from caa_cli.models.load import check_classes, probe
from caa_cli.runtime.words import counted, sizes
from caa_cli.training.trainee import Trainee, count_parameters


class NewClassifier(Trainee):
    """A classifier, which is smoothed as it is."""

    network: NormalisedClassifier

    def __init__(self, network: NormalisedClassifier, card: ModelCard, normalisation: str = "none") -> None:
        self.network, self.card, self.num_classes = network, card, card.num_classes
        self.normalisation = normalisation

    @property
    def base_classifier(self) -> NormalisedClassifier:
        return self.network

    def describe(self) -> Rows:
        weights = count_parameters(self.network)
        return [("model", f"{self.card.arch}, {counted(weights, 'weight', ',')}, normalisation {self.normalisation}")]

    def content(self, training: dict[str, Any]) -> bytes:
        return checkpoint_bytes(self.network, replace(self.card, training=training))


def new_classifier(plan: TrainPlan, images: Images) -> NewClassifier:
    """An untrained classifier for these images. Raises CaaError if it does not take them."""
    normalisation = plan.normalisation or "none"
    card = _card(plan, images, normalisation)
    try:
        model = build(card)
    except RuntimeError as error:
        size = sizes(card.input_shape)
        raise UsageError(
            f"no {card.arch} can be built for {size} images ({error})", "use another --arch, or --image-size"
        ) from error
    classes, model.repeat = probe(model.network, card.input_shape, f"the network of {card.arch}")
    hint = "let it have as many: a factory that has a parameter num_classes is given the number"
    check_classes(card.arch, classes, card.num_classes, hint)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UsageError(f"{card.arch} has no weights to train", "let requires_grad be True for some of them")
    classifier = NewClassifier(model, card, normalisation)
    _rehearse(classifier, plan.output)
    return classifier


def _rehearse(classifier: NewClassifier, path: Path) -> None:
    """Raise UsageError unless the network's checkpoint can be written, read and loaded: not after the last epoch."""
    network = classifier.network.network
    try:
        for name, tensor in network.state_dict().items():
            if (what := oddity(tensor)) is not None:  # older versions of safetensors raise for some
                raise unusable(path, name, what, 1)
        network.load_state_dict(read_back(path, classifier.content({})))
    except (CaaError, RuntimeError) as error:
        problem = error.problem if isinstance(error, CaaError) else last_line(error)
        raise UsageError(
            f"no checkpoint of {classifier.card.arch} could be read after training: {problem}",
            "register buffers that are no ordinary finite tensors with persistent=False",
        ) from error


def _card(plan: TrainPlan, images: Images, normalisation: str) -> ModelCard:
    if images.num_classes < 2:
        raise UsageError(f"{images.name} has one class: a classifier needs two", "add images of another class")
    refuse_other_channels(normalisation, images.input_shape[0])
    mean, std = NORMALISATIONS[normalisation]
    return ModelCard(
        arch=plan.arch,
        num_classes=images.num_classes,
        input_shape=images.input_shape,
        mean=mean,
        std=std,
        dataset=images.name,
        sigma=plan.sigma,
        method=plan.method,
        tool_version=__version__,
        class_names=images.class_names,
    )
