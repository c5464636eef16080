"""From a checkpoint and what the user said of it to a card that is complete."""

from __future__ import annotations

from dataclasses import dataclass, replace

from caa_cli.errors import UsageError
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights


@dataclass(frozen=True)
class Overrides:
    """What the command line says of a checkpoint; None where it says nothing."""

    arch: str | None = None
    sigma: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def resolve_card(
    weights: Weights, said: Overrides, dataset: str, input_shape: tuple[int, int, int], num_classes: int
) -> tuple[ModelCard, list[str]]:
    """(the card to build and run by, things to say aloud). A flag overrides what the checkpoint says.

    Raises UsageError where something needed is known to neither, or images and model don't fit.
    """
    card, notes = weights.card, []
    if card is None:
        if said.arch is None:
            raise UsageError(
                f"{weights.path} does not say which architecture it holds",
                "add --arch, for instance --arch resnet18",
            )
        card = ModelCard(said.arch, _classes(weights), input_shape, dataset=dataset)
        if said.mean is None:
            notes.append("no normalisation is known for this checkpoint: none is used (set --mean and --std)")
    else:
        if said.arch is not None and said.arch != card.arch:
            notes.append(f"--arch {said.arch} overrides the checkpoint's {card.arch}")
        if said.sigma is not None and card.sigma is not None and said.sigma != card.sigma:
            notes.append(f"--sigma {said.sigma:g} overrides the {card.sigma:g} that the checkpoint was trained with")
        for name in ("mean", "std"):
            value = getattr(said, name)
            if value is not None and value != getattr(card, name):
                notes.append(f"--{name} overrides the checkpoint's {getattr(card, name)}")
        if card.dataset not in (None, dataset) and dataset != "demo":
            notes.append(f"--dataset {dataset} overrides the {card.dataset} that the checkpoint was trained on")
    card = replace(card, **{name: value for name, value in vars(said).items() if value is not None})
    if card.sigma is None:
        raise UsageError(
            f"{weights.path} does not say which noise it was trained for",
            "add --sigma, for instance --sigma 0.5",
        )
    _check_fit(card, dataset, input_shape, num_classes)
    return card, notes


def _check_fit(card: ModelCard, dataset: str, input_shape: tuple[int, int, int], num_classes: int) -> None:
    if card.input_shape != input_shape:
        raise UsageError(
            f"the model takes {_by(card.input_shape)} images, {dataset} has {_by(input_shape)}",
            f"use the data set it was trained on (--dataset {card.dataset or '…'}), or another checkpoint",
        )
    if card.num_classes < num_classes:
        raise UsageError(
            f"the model knows {card.num_classes} classes, {dataset} has {num_classes}",
            "use the data set it was trained on, or another checkpoint",
        )
    for name, values in (("mean", card.mean), ("std", card.std)):
        if len(values) not in (1, input_shape[0]):
            raise UsageError(
                f"--{name} has {len(values)} values, the images have {input_shape[0]} channels",
                f"give one value, or {input_shape[0]} separated by commas",
            )


def _classes(weights: Weights) -> int:
    """The rows of the last matrix: a classifier ends in a linear layer."""
    matrices = [tensor for tensor in weights.tensors.values() if tensor.dim() == 2]
    if not matrices:
        raise UsageError(f"{weights.path} holds no linear layer, so no classifier", "name another checkpoint")
    return int(matrices[-1].shape[0])


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
