"""The base classifier of a smoothed model, and the files that it is made of: checkpoints, and perhaps a denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from caa_cli.config.choices import LOGITS
from caa_cli.config.datasets import DATASETS
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights, find_checkpoint, read_weights, record_of
from caa_cli.models.composite import DenoisedClassifier, Ensemble, ResizedClassifier
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.denoisers.open import build_denoiser, check_images, open_denoiser, recognise, with_weights_digest
from caa_cli.models.load import build_model
from caa_cli.models.preprocessing import Preprocessing
from caa_cli.models.resolve import Overrides, resolve_card
from caa_cli.runtime.words import counted, sizes

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ModelFiles:
    """The files of one smoothed model, read. weights: of each checkpoint.  trust: they may name code to run."""

    weights: tuple[Weights, ...]
    denoiser: Denoiser | None
    trust: bool

    @staticmethod
    def read(
        checkpoints: Sequence[str],
        denoiser: Path | None = None,
        denoiser_arch: str | None = None,
        trust: bool = False,
    ) -> ModelFiles:
        """Raises CaaError for a file that can't be used."""
        weights = tuple(read_weights(find_checkpoint(path), trust) for path in checkpoints)
        for held in weights:
            refuse_denoiser(held)
        front = None
        if denoiser is not None or denoiser_arch is not None:
            front = open_denoiser(denoiser, denoiser_arch, trust)
        return ModelFiles(weights, front, trust)

    @property
    def sigma(self) -> float | None:
        """The noise that the denoiser, else the checkpoints were trained with; None where they don't say. Raises
        UsageError where they differ."""
        if self.denoiser is not None and self.denoiser.sigma is not None:
            return self.denoiser.sigma
        sigma: float | None = self._agreed("sigma", "with σ =", "noise the ensemble is smoothed with")
        return sigma

    @property
    def dataset(self) -> str | None:
        """The data set that the checkpoints were trained on; None where they don't say. Raises UsageError where
        they differ."""
        dataset: str | None = self._agreed("dataset", "on", "images the ensemble is for")
        return dataset

    def _agreed(self, name: str, trained: str, what: str) -> Any:
        """The value of this field on the checkpoints' cards. Raises UsageError where they differ."""
        known = [(held.path, value) for held in self.weights if held.card and (value := getattr(held.card, name))]
        for path, value in known:
            first, one = known[0]
            if value != one:
                raise UsageError(
                    f"{first} was trained {trained} {one}, {path} {trained} {value}",
                    f"say which {what}, for instance --{name} {one}",
                )
        return known[0][1] if known else None

    def image_size(self, dataset: str, arch: str | None = None) -> int | None:
        """The --image-size that suits the model; None: images keep their size. arch: as --arch says it."""
        if self.denoiser is not None and self.denoiser.size is not None and DATASETS[dataset].resized:
            return self.denoiser.size
        return self.weights[0].image_size(dataset, arch)

    def preprocessing(self, arch: str | None = None) -> Preprocessing | None:
        """How images are prepared, where the origin of every member says so, and the same."""
        first, *others = (weights.preprocessing(arch) for weights in self.weights)
        return first if all(other == first for other in others) else None


@dataclass(frozen=True)
class Member:
    """One classifier. card: what its checkpoint and the command line say; input_shape is of the images it takes."""

    weights: Weights
    card: ModelCard

    @property
    def record(self) -> dict[str, Any]:
        """What a result says of its checkpoint, where possible in the checkpoint's own words."""
        return record_of(self.weights, self.weights.card or self.card)


@dataclass(frozen=True)
class BaseClassifier:
    """What is smoothed: noisy images → denoiser → resizing → one classifier, or an ensemble.

    card: of the whole; its input_shape is that of the images that noise is added to.  ensemble: what becomes of the
    members' logits; None of one.
    """

    members: tuple[Member, ...]
    card: ModelCard
    ensemble: str | None = None
    denoiser: Denoiser | None = None

    @property
    def arch(self) -> str:
        """All parts by name, for the chunk sizes that are kept."""
        parts = [] if self.denoiser is None else [self.denoiser.arch]
        shapes = dict.fromkeys(member.card.input_shape for member in self.members)
        parts += [f"resized to {sizes(shape)}" for shape in shapes if shape != self.card.input_shape]
        return ", ".join([*parts, self.card.arch])

    @property
    def record(self) -> dict[str, Any]:
        """The `checkpoint` of a result: the first, and what the model is made of beside it."""
        record, *others = (member.record for member in self.members)
        if others:
            record |= {"ensemble": self.ensemble, "members": others}
        if self.denoiser is None:
            return record
        expected = {} if self.expected_sigma is None else {"expected_sigma": self.expected_sigma}
        return {**record, "denoiser": {**self.denoiser.record, **expected}}

    @property
    def expected_sigma(self) -> float | None:
        """The noise that the denoiser was trained for and is used with, where it is not exactly σ. Raises CaaError
        where it can't denoise σ."""
        expected = None if self.denoiser is None else self.denoiser.expected_sigma
        return None if expected is None else expected(self.card.sigma or 0.0)

    @property
    def size(self) -> int | None:
        """The height and width that classifiers take where that is not the images'; None also where they differ."""
        shape = self.common("input_shape")
        return None if shape is None or shape[1] != shape[2] or shape == self.card.input_shape else shape[1]

    def common(self, name: str) -> Any:
        """The value that the cards of all members have for this field; None where they differ."""
        first, *others = (getattr(member.card, name) for member in self.members)
        return first if all(other == first for other in others) else None

    def build(self) -> nn.Module:
        """The network: pixels around [0, 1], (N, *card.input_shape) → logits. Raises CaaError if files don't fit."""
        models = [self._built(member) for member in self.members]
        model = models[0] if len(models) == 1 else Ensemble(models, self.ensemble or LOGITS)
        if self.denoiser is None:
            return model
        return DenoisedClassifier(build_denoiser(self.denoiser, self.card.sigma or 0.0, self.card.input_shape), model)

    def _built(self, member: Member) -> nn.Module:
        model, (_, height, width) = build_model(member.weights, member.card), member.card.input_shape
        return model if (height, width) == self.card.input_shape[1:] else ResizedClassifier(model, (height, width))


def resolve_model(
    files: ModelFiles,
    overrides: Overrides,
    dataset: str,
    input_shape: Shape,
    num_classes: int,
    ensemble: str | None = None,
    size: int | None = None,
) -> tuple[BaseClassifier, list[str]]:
    """(the base classifier for images of this shape, notes for the user). Overrides are of every checkpoint.

    size: the height and width that the classifiers take; None: behind a denoiser as their checkpoints say, else
    those of the images. Raises UsageError where something is missing, or files, images and σ don't belong together.
    """
    denoiser, notes = files.denoiser, list[str]()
    if denoiser is not None:
        check_images(denoiser, input_shape, dataset)
        if overrides.sigma is not None and denoiser.sigma not in (None, overrides.sigma):
            notes.append(
                f"--sigma {overrides.sigma:g} is not the {denoiser.sigma:g} that the denoiser was trained to remove"
            )
    overrides = replace(overrides, sigma=files.sigma if overrides.sigma is None else overrides.sigma)
    members, several = [], len(files.weights) > 1
    for weights in files.weights:
        shape = (input_shape[0], *_size_for(weights, overrides.arch, input_shape, size, denoiser is not None))
        try:
            card, remarks = resolve_card(weights, overrides, dataset, shape, num_classes, files.trust)
        except CaaError as error:
            error.problem = _about(weights, error.problem, several)
            raise
        notes += [_about(weights, remark, several) for remark in remarks]
        members.append(Member(weights, card))
    first = members[0]
    for member in members[1:]:
        if member.card.num_classes != first.card.num_classes:
            raise UsageError(
                f"{first.weights.path} knows {counted(first.card.num_classes, 'class')}, {member.weights.path} "
                f"{member.card.num_classes}",
                "name checkpoints of the same classes, in the same order",
            )
    archs = dict.fromkeys(member.card.arch for member in members)
    card = replace(first.card, arch=" + ".join(archs), input_shape=input_shape)
    kind = (ensemble or LOGITS) if several else None
    front = denoiser and with_weights_digest(denoiser, card.sigma or 0.0)
    return BaseClassifier(tuple(members), card, kind, front), list(dict.fromkeys(notes))


def _about(weights: Weights, text: str, several: bool) -> str:
    """The text about a checkpoint, which is named where there are several."""
    return f"{weights.path}: {text}" if several and str(weights.path) not in text else text


def refuse_denoiser(weights: Weights) -> None:
    """Raise UsageError for a denoiser that is named as the classifier."""
    if weights.card is not None or weights.module is not None or weights.recognised is not None:
        return
    denoiser = recognise(DenoiserFile(path=weights.path, sha256=weights.sha256, weights=weights))
    if denoiser is not None:
        raise UsageError(
            f"--checkpoint {weights.path} holds a denoiser ({denoiser.arch}), not a classifier",
            f"name the classifier behind it too: --checkpoint CLASSIFIER --denoiser {weights.path}",
        )


def _size_for(
    weights: Weights, arch: str | None, input_shape: Shape, size: int | None, denoised: bool
) -> tuple[int, int]:
    """The (height, width) of the images that a member is given, for the parameters of `resolve_model`. Raises
    UsageError for a `size` that is not its own."""
    own = weights.card.input_shape if weights.card is not None else None
    if size is not None:
        if own is not None and own[1:] != (size, size):
            raise UsageError(
                f"--classifier-size {size} is not the size of the model's images, {sizes(own)}",
                "leave it out, or name the size that the checkpoint was trained on",
            )
        return size, size
    if not denoised:
        return input_shape[1:]
    if own is not None:
        return own[1:]
    prepared = weights.preprocessing(arch)
    taken = prepared.size if prepared is not None else weights.recognised.size if weights.recognised else None
    return input_shape[1:] if taken is None else (taken, taken)
