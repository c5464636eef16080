"""The complete card of a checkpoint: its metadata, or what is inferred, with the user's overrides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.config.datasets import DATASETS
from caa_cli.config.ranges import MEAN, SIGMA, STD
from caa_cli.errors import UsageError
from caa_cli.models.architectures import builder_of, runs_foreign_code
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights
from caa_cli.models.factory import network_from, parse_call
from caa_cli.models.layouts import layout_of, normalisations_to_try, preset_of, refuse_other_channels, sigma_in_name
from caa_cli.models.load import probe
from caa_cli.models.outline import listed, outline
from caa_cli.models.prefixes import normalises, stored_normalisation
from caa_cli.models.recognise import Recognised
from caa_cli.runtime.words import counted, sizes


@dataclass(frozen=True)
class Overrides:
    """Settings of a checkpoint given on the command line; None where not given."""

    arch: str | None = None
    sigma: Annotated[float | None, SIGMA] = None
    mean: Annotated[tuple[float, ...] | None, MEAN] = None
    std: Annotated[tuple[float, ...] | None, STD] = None

    @property
    def normalisation(self) -> bool:
        return self.mean is not None or self.std is not None


def resolve_card(
    weights: Weights,
    overrides: Overrides,
    dataset: str,
    input_shape: tuple[int, int, int],
    num_classes: int,
    trust: bool = False,
) -> tuple[ModelCard, list[str]]:
    """(the card to build the model from, notes for the user). Overrides take precedence over the checkpoint.

    trust: the checkpoint may name a factory to import.
    Raises UsageError if a required value is known from neither, or if images and model don't match.
    """
    if overrides.arch is not None:  # refused before anything is shown
        parse_call("--arch", overrides.arch) if ":" in overrides.arch else builder_of(overrides.arch)
    if weights.card is None:
        card, notes = _described(weights, overrides, dataset, input_shape, num_classes)
    else:
        card, notes = weights.card, _overridden(weights.card, overrides, dataset)
        if overrides.arch is None and not trust and runs_foreign_code(card.arch):
            raise UsageError(
                f"{weights.path} names {card.arch} as its architecture, which would import and run that code",
                f"if that is yours, add --arch {card.arch}",
            )
    given = {name: value for name, value in vars(overrides).items() if value is not None}
    if weights.module is not None:
        given.pop("arch", None)
    card = replace(card, **given)
    if card.sigma is None:
        named = sigma_in_name(weights.path)
        raise UsageError(
            f"{weights.path} does not say which noise it was trained for",
            f"add --sigma, for instance --sigma {named}, as its name suggests" if named else
            "add --sigma, for instance --sigma 0.5",
        )  # fmt: skip
    _check_fit(card, dataset, input_shape, num_classes)
    _check_normalisation(weights, card)
    if card.num_classes > num_classes and DATASETS[dataset].open_classes:
        notes.append(
            f"the model knows {counted(card.num_classes, 'class')}, the images have {num_classes}: "
            "their labels must be numbered as the model's"
        )
    return card, notes


def _overridden(card: ModelCard, overrides: Overrides, dataset: str) -> list[str]:
    notes = []
    if overrides.arch is not None and overrides.arch != card.arch:
        notes.append(f"--arch {overrides.arch} overrides the checkpoint's {card.arch}")
    if overrides.sigma is not None and card.sigma is not None and overrides.sigma != card.sigma:
        notes.append(f"--sigma {overrides.sigma:g} overrides the {card.sigma:g} that the checkpoint was trained with")
    notes += _normalised_otherwise(overrides, card.mean, card.std)
    if card.dataset not in (None, dataset) and dataset != "demo":
        notes.append(f"--dataset {dataset} overrides the {card.dataset} that the checkpoint was trained on")
    return notes


def _normalised_otherwise(overrides: Overrides, mean: tuple[float, ...], std: tuple[float, ...]) -> list[str]:
    """Notes on what is given in place of the checkpoint's mean and std."""
    notes = []
    for name, here, there in (("mean", overrides.mean, mean), ("std", overrides.std, std)):
        if here is not None and here != there:  # without dashes: they may be those of --normalisation
            given, saved = (",".join(f"{number:g}" for number in values) for values in (here, there))
            notes.append(f"{name} {given} overrides the checkpoint's {saved}")
    return notes


def _described(
    weights: Weights, overrides: Overrides, dataset: str, input_shape: tuple[int, int, int], num_classes: int
) -> tuple[ModelCard, list[str]]:
    """(the inferred card of a file without metadata, notes on the assumptions)."""
    arch, classes, notes = _network(weights, overrides.arch, input_shape, num_classes)
    if weights.passed_over:
        notes.append(
            f"{weights.path} holds several sets of weights: those under {'.'.join(weights.keys)} are used, "
            f"others are under {', '.join(weights.passed_over)}"
        )
    names = weights.origin.class_names if weights.origin is not None else ()
    card = ModelCard(arch, classes, input_shape, dataset=dataset, class_names=names if len(names) == classes else ())
    itself = _normalising(weights, card)
    stored = None if itself else stored_normalisation(weights.tensors)
    if overrides.normalisation:
        if itself and (overrides.mean, overrides.std) != NORMALISATIONS["none"]:
            notes.append(
                f"{itself} normalises images itself: with a normalisation in front they are normalised twice"
            )
        return card, notes if stored is None else [*notes, *_normalised_otherwise(overrides, *stored)]
    if itself:
        note = f"{itself} normalises images itself, by what is saved with its weights: none is added in front"
        return card, [*notes, note]
    mean, std, more = _normalisation(weights, card, stored)
    return replace(card, mean=mean, std=std), [*notes, *more]


def _normalising(weights: Weights, card: ModelCard) -> str | None:
    """The name of the card's network if constants saved with its weights are its own; else None."""
    if not normalises(weights.tensors):
        return None
    if weights.module is not None:
        return str(weights.path)
    if not runs_foreign_code(card.arch):
        return None
    # A factory is called once more than it has to be, and only where the question arises.
    network = network_from(card.arch, card.num_classes, card.input_shape)
    return card.arch if normalises(network.state_dict()) else None


def _network(
    weights: Weights, arch: str | None, input_shape: tuple[int, int, int], num_classes: int
) -> tuple[str, int, list[str]]:
    """(architecture, number of classes, notes). arch: as --arch says it; num_classes: of the images."""
    recognised = weights.recognised
    if weights.module is not None:
        kinds = {"TorchScript": "torchscript", "torch.export": "torch-export"}
        held = kinds.get(weights.format, "module") if weights.origin is None else weights.origin.arch
        classes, repeat = probe(weights.module.float(), input_shape, f"the network of {weights.path}")
        notes = []
        if arch not in (None, held):
            notes.append(f"--arch {arch} is not used: {weights.path} holds the whole network")
        if repeat > 1:
            notes.append("the network takes colour images: grey ones are repeated to three channels")
        return held, classes, notes
    if arch is not None:
        return arch, recognised.num_classes if recognised else _classes(weights, num_classes), []
    if recognised is not None:
        arch = recognised.for_images(input_shape[1])
        notes = [] if recognised.other is None else [_on_stem(recognised, arch, input_shape[1])]
        return arch, recognised.num_classes, notes
    raise UsageError(
        describe_unknown(weights), "add --arch: a name of caa's, or package.module:factory for a network of your own"
    )


def _normalisation(
    weights: Weights, card: ModelCard, stored: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> tuple[tuple[float, ...], tuple[float, ...], list[str]]:
    """(mean, std, notes) for the card's network, as stored or as its origin says, else the likeliest."""
    if stored is not None:
        mean, std = ("/".join(f"{value:g}" for value in values) for values in stored)
        return *stored, [f"normalisation as saved beside the weights: mean {mean}, std {std}"]
    prepared = weights.preprocessing(card.arch)
    if prepared is not None:
        return prepared.mean, prepared.std, []
    layout = layout_of(weights)
    likeliest, *others = normalisations_to_try(layout, card.dataset, card.input_shape[0])
    why = f"the likeliest for {layout.source}" if layout.normalisations else f"that of {card.dataset}"
    if weights.module is not None:
        why = "the network may hold its own"
    note = (
        f"{weights.path} does not say how its images are normalised: --normalisation {likeliest} is assumed "
        f"({why}; others: {', '.join(others)})"
    )
    return *NORMALISATIONS[likeliest], [note]


def _on_stem(recognised: Recognised, arch: str, height: int) -> str:
    with_pooling, without = recognised.other, recognised.arch
    other, what = (without, "without") if arch == with_pooling else (with_pooling, "with")
    return (
        f"the weights fit {without} and {with_pooling} alike: {arch} is taken, as the images are {height} pixels "
        f"high (--arch {other}: {what} max-pooling after the stem)"
    )


def _check_fit(card: ModelCard, dataset: str, input_shape: tuple[int, int, int], num_classes: int) -> None:
    if card.input_shape != input_shape:
        raise UsageError(
            f"the model takes {sizes(card.input_shape)} images, {dataset} has {sizes(input_shape)}",
            f"use the data set it was trained on (--dataset {card.dataset or '…'}), or another checkpoint",
        )
    if card.num_classes < 2:
        raise UsageError(
            "the model has one logit, and a classifier needs one for each of two classes or more",
            "of a logit that stands for both classes make two: torch.cat([-logit, logit], dim=1)",
        )
    if card.num_classes < num_classes or (card.num_classes > num_classes and not DATASETS[dataset].open_classes):
        raise UsageError(
            f"the model knows {counted(card.num_classes, 'class')}, {dataset} has {num_classes}",
            "use the data set it was trained on, or another checkpoint",
        )


def _check_normalisation(weights: Weights, card: ModelCard) -> None:
    """Raise UsageError for a normalisation of other channels than those of the images, or of the network."""
    channels = card.input_shape[0]
    several = {len(card.mean), len(card.std)} - {1}
    if several == {3} and channels == 1 and _takes_colour(weights, card):
        return
    if (preset := preset_of(card.mean, card.std)) is not None:
        refuse_other_channels(preset, channels)
    for name, values in (("mean", card.mean), ("std", card.std)):
        if len(values) not in (1, channels):
            commas = f", or {channels} separated by commas" if channels > 1 else ""
            raise UsageError(
                f"--{name} has {counted(len(values), 'value')}, one for each channel, but the images have {channels}",
                f"give one value{commas}",
            )


def _takes_colour(weights: Weights, card: ModelCard) -> bool:
    """Whether the network takes colour images, so that the grey ones of the card are repeated to three channels."""
    if weights.module is None and not runs_foreign_code(card.arch):
        return builder_of(card.arch)[1] == 3
    # A factory is called once more than it has to be, and only where the question arises.
    network = weights.module or network_from(card.arch, card.num_classes, card.input_shape)
    return probe(network.float(), card.input_shape, f"the network of {card.arch}")[1] == 3


def _classes(weights: Weights, expected: int) -> int:
    """The expected number of classes if a matrix has that many rows, else the rows of the last matrix."""
    rows = [int(tensor.shape[0]) for tensor in weights.tensors.values() if tensor.dim() == 2]
    if not rows or expected in rows:
        return expected
    return rows[-1]


def describe_unknown(weights: Weights) -> str:
    """The problem of a checkpoint whose architecture is not recognised, with its names in short."""
    names = listed(outline(weights.tensors))
    tensors = counted(len(weights.tensors), "tensor")
    return f"{weights.path} holds weights of no architecture that caa knows ({tensors}: {names})"
