"""Building a model from a checkpoint and its card."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier, build, runs_foreign_code
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights
from caa_cli.models.fit import fitted
from caa_cli.models.limits import last_line
from caa_cli.models.preprocessing import Preprocessing
from caa_cli.runtime.words import counted, sizes

_OTHER_IMAGES = "check --dataset: it has to have the images it was made for"


def build_model(weights: Weights, card: ModelCard) -> NormalisedClassifier:
    """The card's model with these weights. Raises CaaError if names or shapes don't match."""
    if weights.module is not None:
        network = weights.module.float()
        _, repeat = probe(network, card.input_shape, f"the network of {weights.path}")
        return NormalisedClassifier(network, card.mean, card.std, repeat)
    foreign = runs_foreign_code(card.arch)
    # A factory is called once. Of others the shapes first: those of an invalid card may exceed any memory.
    model = build(card) if foreign else _on_meta(weights, card)
    tensors, difference = fitted(weights.path, weights.tensors, model.network.state_dict())
    if difference is not None:
        raise _misfit(weights, card, difference)
    if not foreign:
        model = build(card)
    try:
        model.network.load_state_dict(tensors, strict=False)
    except RuntimeError as error:  # a user's network may override load_state_dict
        raise CaaError(
            f"the weights in {weights.path} don't fit {card.arch}: {error}",
            f"compare them with what the file holds: caa inspect {shlex.quote(str(weights.path))}",
        ) from error
    if foreign:
        classes, model.repeat = probe(model.network, card.input_shape, f"the network of {card.arch}")
        # The card's number of classes was read off a matrix of the weights.
        check_classes(
            card.arch,
            classes,
            card.num_classes,
            "use the data set it was trained on (--dataset); a factory that has a parameter num_classes is given "
            "the number",
        )
    return model


def _on_meta(weights: Weights, card: ModelCard) -> NormalisedClassifier:
    """The card's model without values. Raises CaaError where there can be none."""
    try:
        with torch.device("meta"):
            return build(card)
    except RuntimeError as error:
        raise CaaError(
            f"no {card.arch} can be built as {weights.path} describes it ({error})", "update caa, or train again"
        ) from error


def probe(
    network: nn.Module, input_shape: Sequence[int], name: str, hint: str = _OTHER_IMAGES, like: Tensor | None = None
) -> tuple[int, int]:
    """(number of classes, number of channels that grey images are repeated to), from forward passes of two images.

    name: of the network, for messages.  like: of whose type and device the images are, and never repeated.

    Raises CaaError if the network rejects images of `input_shape`, does not return logits, or mixes images up.
    """
    network.eval()
    channels, height, width = input_shape
    problem = ""
    for repeat in (1, 3) if channels == 1 and like is None else (1,):
        images = torch.rand(3, channels * repeat, height, width, generator=torch.Generator().manual_seed(0))
        images = images if like is None else images.to(like)
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's warnings on how the network is written
                logits = network(images[:2].clone())
                if isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == 2:
                    _refuse_mixing(network, images, logits[0], name)
                    return logits.shape[1], repeat
        except CaaError:
            raise
        except Exception as error:  # foreign code may raise anything
            problem = problem or f"can't take {channels}×{height}×{width} images ({last_line(error)})"
            continue
        what = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        problem = f"gives {what} for two images, where logits of shape (2, classes) are wanted"
    raise CaaError(f"{name} {problem}", hint)


def check_classes(name: str, found: int, wanted: int, hint: str) -> None:
    """Raises UsageError unless a network of this name has as many logits as there are classes."""
    if found != wanted:
        raise UsageError(
            f"{name} gives {counted(found, 'logit')} for an image, not one for each of {counted(wanted, 'class')}",
            hint,
        )


def _refuse_mixing(network: nn.Module, images: Tensor, logits: Tensor, name: str) -> None:
    """Raise CaaError if the logits of the first image, beside the second, are others beside the third. Those of a
    network that is random are others every time, and may be."""

    def alike(other: Tensor) -> bool:
        return torch.allclose(logits, other[0], rtol=0, atol=1e-2 * float(logits.double().norm()), equal_nan=True)

    if not alike(network(images[[0, 2]])) and alike(network(images[:2].clone())):
        raise CaaError(
            f"{name} gives an image other logits beside other images",
            "a classifier that is certified looks at each image alone: its batch normalisation needs running "
            "statistics (track_running_stats)",
        )


def input_of(network: nn.Module, prepared: Preprocessing | None = None) -> tuple[tuple[int, int, int], int] | None:
    """(shape of the images that the network takes, number of classes), found by trying usual ones; None: none fits.

    Many networks take images of any size: of 1,000 classes they are taken to be of 224 pixels, else of 32 in colour
    and of 28 in grey. A colour network that begins with its normalisation may take grey ones too.
    """
    sizes = (prepared.size,) if prepared is not None else (32, 28, 224)
    fitting = []
    for channels, size in ((channels, size) for channels in (3, 1) for size in sizes):
        with suppress(CaaError):
            classes, repeat = probe(network, (channels, size, size), "")
            if repeat == 1:
                fitting.append(((channels, size, size), classes))
    large = [entry for entry in fitting if entry[1] >= 1000 and entry[0][1] > 32]
    colour = [entry for entry in fitting if entry[0][0] == 3]
    grey = [entry for entry in fitting if entry[0] == (1, 28, 28)]
    return next(iter([*large, *colour, *grey, *fitting]), None)


def count_weights(weights: Weights) -> int:
    """The number of values in the parameters and buffers."""
    return sum(tensor.numel() for tensor in weights.tensors.values())


def _misfit(weights: Weights, card: ModelCard, difference: str) -> CaaError:
    """The error for weights that are not the card's. difference: the first, in words."""
    found = weights.recognised
    problem = (
        f"the weights in {weights.path} don't fit {card.arch} with {counted(card.num_classes, 'class')} on "
        f"{sizes(card.input_shape)} images: "
    )
    if found is None:
        hint = "name the architecture they were trained with (--arch), and the data set (--dataset)"
        return CaaError(problem + difference, hint)
    size = f" on {sizes((found.channels, found.size, found.size))} images" if found.size else ""
    return CaaError(
        f"{problem}they are those of {found}{size}; {difference}",
        f"use --arch {found.arch}, and the data set it was trained on (--dataset)",
    )
