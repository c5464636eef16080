"""`load`: a checkpoint as a smoothed classifier; `load_images`: images and labels of a data set."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caa_cli.config.datasets import DATASETS, DEMO, DatasetSpec
from caa_cli.config.normalisations import mean_and_std
from caa_cli.config.ranges import Count
from caa_cli.data.datasets import class_names, open_dataset
from caa_cli.errors import UsageError
from caa_cli.models.base_classifier import ModelFiles, resolve_model
from caa_cli.models.checkpoint import Weights
from caa_cli.models.layouts import layout_of
from caa_cli.models.resolve import Overrides
from caa_cli.python.errors import plain, plain_names
from caa_cli.python.inputs import path_text, whole_numbers
from caa_cli.python.settings import model_plan, typed_value
from caa_cli.python.surroundings import apart
from caa_cli.runtime.device import numeric_mode, open_device, resolve_device
from caa_cli.runtime.words import counted
from caa_cli.smoothing.arguments import checked_shape
from caa_cli.smoothing.classifier import SmoothedClassifier


@plain_names
@apart()
def load(
    checkpoint: str | Path | Sequence[str | Path],
    *,
    ensemble: str | None = None,
    denoiser: str | Path | None = None,
    denoiser_arch: str | None = None,
    classifier_size: int | None = None,
    sigma: float | None = None,
    dataset: str | None = None,
    arch: str | None = None,
    normalisation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
    trust_checkpoint: bool = False,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "float32",
) -> SmoothedClassifier:
    """The smoothed classifier of a checkpoint, on its device; settings are those of `caa attack`'s flags.

    - `checkpoint`: a file, a folder, or "demo". Several make an ensemble.
    - `ensemble`: the mean of the members' "logits" or "softmax", or the majority of their "votes".
    - `denoiser`: the file or folder of a denoiser in front of the model; `denoiser_arch`: a factory of yours.
    - `sigma`, `arch`, `normalisation` (a name) or `mean` and `std` (a number for each channel): None means as the
      checkpoint says.
    - `dataset`: which images the model takes; no file is opened. `input_shape` (channels, height, width) and
      `num_classes` describe any other images.

    The result's `model` is the whole base classifier, without noise: pixels → logits, differentiable. If the
    checkpoint leaves something open, what was assumed is reported as a Python warning. Raises UsageError if something
    is missing or does not fit, and CaaError if the file can't be used.
    """
    typed_value("normalisation", str, normalisation)
    mean, std = mean_and_std(normalisation, _a_channel("mean", mean), _a_channel("std", std))
    several = checkpoint if isinstance(checkpoint, (list, tuple)) else [checkpoint]
    plan = model_plan(
        [path_text("checkpoint", path) for path in several],
        sigma=sigma,
        arch=arch,
        ensemble=ensemble,
        classifier_size=classifier_size,
        denoiser_arch=denoiser_arch,
        dataset=dataset,
        dtype=str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype,
        mean=mean,
        std=std,
    )
    num_classes = typed_value("num_classes", int, num_classes)
    if num_classes is not None:
        Count().check("--num-classes", num_classes)
    place = resolve_device(str(device))
    kind = numeric_mode(plan.dtype, place)
    front = None if denoiser is None else Path(path_text("denoiser", denoiser))
    files = ModelFiles.read([plan.checkpoint, *plan.members], front, denoiser_arch, trust_checkpoint)
    name = plan.dataset or _likely_dataset(files, plan.checkpoint)
    shape = None if input_shape is None else checked_shape(input_shape)
    if plan.dataset is None and files.denoiser is None and plan.classifier_size is None:
        _check_images(files.weights[0], shape, num_classes)
    shape, classes = _images_of(files, DATASETS[name], shape, num_classes)
    overrides = Overrides(plan.arch, plan.sigma, plan.mean, plan.std)
    base, notes = resolve_model(files, overrides, name, shape, classes, plan.ensemble, plan.classifier_size)
    for note in notes:
        warnings.warn(plain(note), stacklevel=4)
    model, card = base.build(), base.card
    open_device(place)
    classifier = SmoothedClassifier(
        model,
        sigma=card.sigma or 0.0,
        num_classes=card.num_classes,
        input_shape=card.input_shape,
        device=place,
        dtype=kind,
    )
    classifier.arch = base.arch
    names = base.card.class_names or class_names(name)
    classifier.class_names = names if len(names) == base.card.num_classes else ()
    return classifier


@plain_names
@apart()
def load_images(
    dataset: str = DEMO,
    data_dir: str | Path | None = None,
    *,
    split: str = "test",
    indices: Sequence[int] | None = None,
    image_size: int | None = None,
    download: bool = False,
) -> tuple[Tensor, Tensor]:
    """(images (N, channels, height, width) float32 in [0, 1], labels (N,) int64) of a data set.

    - `dataset`, `data_dir`, `split`, `image_size`, `download`: as the flags of `caa attack`.
    - `indices`: positions in the split, None for all. Pass the same to `attack` and `certify`.

    Raises UsageError, and ImageError for a file that can't be read.
    """
    folder = None if data_dir is None else Path(path_text("data_dir", data_dir))
    image_size = typed_value("image_size", int, image_size)
    opened = open_dataset(dataset, folder, split, image_size=image_size, download=download)
    chosen = whole_numbers("indices", opened.indices if indices is None else indices)
    outside = [index for index in chosen if not 0 <= index < len(opened)]
    if outside:
        raise UsageError(
            f"{dataset} {split} has {counted(len(opened), 'image')}: {outside[0]} is none of them",
            f"use indices from 0 to {len(opened) - 1}",
        )
    images = torch.stack([opened.image(index) for index in chosen]) if chosen else torch.zeros(0, *opened.input_shape)
    return images, opened.labels[torch.from_numpy(np.asarray(chosen, dtype=np.int64))]


def _a_channel(name: str, values: Sequence[float] | None) -> tuple[float, ...] | None:
    """A number for each channel, or one for all of them."""
    if values is None:
        return None
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{name} must be a list with a number a channel, not {values!r}", f"for instance {name}=[0.5]"
        ) from error


def _likely_dataset(files: ModelFiles, checkpoint: str) -> str:
    """The data set that the files name, or whose images they look made for; else "folder"."""
    stored, weights = files.dataset, files.weights[0]
    likely = DEMO if checkpoint == DEMO else layout_of(weights).dataset
    return next((name for name in (stored, likely) if name in DATASETS), "folder")


def _check_images(weights: Weights, shape: tuple[int, int, int] | None, classes: int | None) -> None:
    """Raises UsageError for images of another shape or number of classes than the checkpoint says."""
    card = weights.card
    if card is None:
        return
    for name, given, own, hint in (
        ("input_shape", shape, card.input_shape, ", or give classifier_size=… for images that are to be resized"),
        ("num_classes", classes, card.num_classes, ""),
    ):
        if given not in (None, own):
            raise UsageError(f"{name}={given}, and {weights.path} has {own}", f"leave {name} out{hint}")


def _images_of(
    files: ModelFiles, spec: DatasetSpec, shape: tuple[int, int, int] | None, classes: int | None
) -> tuple[tuple[int, int, int], int]:
    """(shape, number of classes) of the images: as given, as the files say, or as the data set has them."""
    weights = files.weights[0]
    card = weights.card
    denoised = None if files.denoiser is None else files.denoiser.input_shape
    shape = shape or denoised or (card.input_shape if card else None) or spec.shape
    classes = classes or (card.num_classes if card else None) or spec.classes
    if classes is None and weights.recognised is not None:
        classes = weights.recognised.num_classes
    missing = [name for name, value in (("input_shape", shape), ("num_classes", classes)) if value is None]
    if shape is None or classes is None:
        raise UsageError(
            f"{weights.path} does not say which images it takes",
            f"give dataset=… (one of {', '.join(DATASETS)}), or {' and '.join(f'{name}=…' for name in missing)}",
        )
    return shape, classes
