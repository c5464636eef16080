"""`certify` and `attack`: the pipelines of the commands, over images that the caller holds."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.attacks import ATTACKS, declared, prefix
from caa_cli.config.choices import MODEL, SURROGATE_MODEL, VOTES
from caa_cli.config.plan import AttackPlan, CertifyPlan, ModelPlan
from caa_cli.data.images import ImageArrays
from caa_cli.display import Display
from caa_cli.errors import UsageError
from caa_cli.python.errors import Interrupted, plain_names
from caa_cli.python.results import AttackResults, CertifyResults
from caa_cli.results.certificates import CertifyRecord, summarise_certificates
from caa_cli.results.records import AttackRecord, summarise
from caa_cli.run.attack_pipeline import AttackPipeline
from caa_cli.run.certify_pipeline import CertifyPipeline
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradients import SurrogateModel, WhiteBox
from caa_cli.smoothing.stein import SteinEstimator
from caa_cli.tuning.choose import choose_chunks

T = TypeVar("T")
Images = Tensor | NDArray[Any] | Sequence[Any]
Labels = Tensor | ArrayLike


@plain_names
def certify(
    model: SmoothedClassifier,
    images: Images,
    labels: Labels | None = None,
    *,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    samples: int = CertifyPlan.samples,
    selection_samples: int = CertifyPlan.selection_samples,
    alpha: float = CertifyPlan.alpha,
    bound: str = CertifyPlan.bound,
    radius: float | None = None,
    chunk_size: int | None = None,
    progress: bool = False,
) -> CertifyResults:
    """The certified radius of each image, as `caa certify` finds it (Cohen et al., 2019).

    images: (N, *input_shape) in [0, 1]. labels: (N,); None: unknown, and none counts as right. indices: the noise of
    each image; None: 0 to N − 1. With the index that an image has in its data set, and the settings of a command,
    results are that command's. radius: decide only whether each image is certified at this radius, for far fewer
    samples. chunk_size: None: measured once a model and machine. The other settings are the flags of that name.

    Raises UsageError for a setting or array that doesn't fit; Interrupted, with what is done, on Ctrl-C.
    """
    arrays = _arrays(model, images, labels, indices)
    plan = CertifyPlan(
        **_shared(model, seed, chunk_size),
        samples=samples,
        selection_samples=selection_samples,
        alpha=alpha,
        bound=bound,
        radius=radius,
    )
    _choose_chunks(model, plan, gradients=False)
    began = time.perf_counter()

    def results(records: list[CertifyRecord]) -> CertifyResults:
        seconds = time.perf_counter() - began
        known = labels is not None
        return CertifyResults.of(
            records, summarise_certificates(records, samples, seconds, radius) if known else None
        )

    records: list[CertifyRecord] = []
    try:
        for record in _shown(CertifyPipeline(plan, model, arrays).run(arrays.indices), len(arrays), progress):
            records.append(record)
    except KeyboardInterrupt as error:
        raise Interrupted(results(records)) from error
    return results(records)


@plain_names
def attack(
    model: SmoothedClassifier,
    images: Images,
    labels: Labels,
    method: str = "caa-newton",
    *,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    gradient: str | nn.Module | SmoothedClassifier | None = None,
    chunk_size: int | None = None,
    progress: bool = False,
    **settings: Any,
) -> AttackResults:
    """The nearest adversarial image of each image that an attack finds, each verified on fresh noise.

    images: (N, *input_shape) in [0, 1]. labels: (N,) the true classes: an image that the model misclassifies is not
    attacked. method: as --attack. indices: the noise of each image; None: 0 to N − 1. With the index that an image
    has in its data set, and the settings of a command, results are that command's, to the bit. gradient: where the
    search's gradients come from: "model", "votes" (its starting points are among `images`), or another model of the
    same images and classes; None: as `model` has them. chunk_size: None: measured once a model and machine.
    settings: every other one by its flag's name (`samples=300`, `verify_samples=10_000`); those of the attack alone
    also without its name (`ddn_initial_norm`, `initial_norm`).

    Raises UsageError for a setting or array that doesn't fit; Interrupted, with what is done, on Ctrl-C.
    """
    arrays = _arrays(model, images, labels, indices)
    model, kind = _with_gradients(model, gradient)
    plan = AttackPlan.of(
        **_shared(model, seed, chunk_size), attack=method, gradient=kind, **_known(method, settings)
    ).resolve(model.sigma)
    search: Attack[Any] = build_attack(plan)
    _choose_chunks(model, plan, gradients=model.differentiates)
    began = time.perf_counter()
    records: dict[int, AttackRecord] = {}
    adversarial: dict[int, NDArray[np.float32]] = {}

    def results() -> AttackResults:
        done = [records[index] for index in arrays.indices if index in records]
        summary = summarise(done, time.perf_counter() - began)
        return AttackResults.of(done, adversarial, model.input_shape, summary)

    try:
        pipeline = AttackPipeline(plan, search, model, arrays)
        for record, image in _shown(pipeline.run(arrays.indices), len(arrays), progress):
            records[record.index] = record
            if image is not None:
                adversarial[record.index] = image
    except KeyboardInterrupt as error:
        raise Interrupted(results()) from error
    return results()


def _shared(model: SmoothedClassifier, seed: int, chunk_size: int | None) -> dict[str, Any]:
    """What every plan has, of a model that is in memory."""
    return {"checkpoint": model.arch, "sigma": model.sigma, "seed": seed, "chunk_size": chunk_size}


# The settings of every attack, by their flags' names; the others are arguments of `attack`, or about files.
_NAMED = {"attack", "settings", "gradient", "save_adversarial", *(f.name for f in fields(ModelPlan))}
_RUN_SETTINGS = ["alpha", "bound", *(f.name for f in fields(AttackPlan) if f.name not in _NAMED)]


def _known(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings by their flags' names. Raises UsageError for one that the attack does not have."""
    names = {name: name for name in (*(declared(method) if method in ATTACKS else ()), *_RUN_SETTINGS)}
    start = prefix(method) if method in ATTACKS else ""
    names |= {name.removeprefix(start): name for name in names}
    unknown = next((name for name in settings if name not in names), None)
    if unknown is not None:
        raise UsageError(
            f"{method} has no setting {unknown!r}",
            f"use one of: {', '.join(n for n in names if not start or not n.startswith(start))}",
        )
    return {names[name]: value for name, value in settings.items()}


def _with_gradients(
    model: SmoothedClassifier, gradient: str | nn.Module | SmoothedClassifier | None
) -> tuple[SmoothedClassifier, str]:
    """(the classifier with this source of gradients, the kind of it as the flag says)."""
    if gradient is None:
        return model, MODEL if model.differentiates else VOTES
    sources = {MODEL: WhiteBox, VOTES: SteinEstimator}
    if isinstance(gradient, str):
        if gradient not in sources:
            raise UsageError(f"gradient {gradient!r} is not known", "use 'model', 'votes' or another model")
        source, kind = sources[gradient](), gradient
    else:
        network = gradient.model if isinstance(gradient, SmoothedClassifier) else gradient
        source, kind = SurrogateModel(network), f"{SURROGATE_MODEL}=python"
    other = copy.copy(model)
    other.gradients = source
    source.move_to(model.device, model.dtype)
    return other, kind


def _arrays(
    model: SmoothedClassifier, images: Images, labels: Labels | None, indices: Sequence[int] | None
) -> ImageArrays:
    """The images, checked. Raises UsageError."""
    x = torch.as_tensor(np.asarray(images) if not isinstance(images, Tensor) else images).detach().cpu()
    shape = model.input_shape
    if x.shape[1:] != shape:
        raise UsageError(
            f"images has the shape {tuple(x.shape)}", f"the model takes (N, {', '.join(map(str, shape))})"
        )
    if not x.is_floating_point():
        raise UsageError(f"images has the dtype {x.dtype}", "give floating-point pixels in [0, 1]: images / 255")
    x = x.float()
    if len(x) and not bool(((x >= 0.0) & (x <= 1.0)).all()):
        raise UsageError("images has pixels that are not in [0, 1], or NaN", "divide bytes by 255")
    if labels is None:
        y = torch.zeros(len(x), dtype=torch.int64)
    else:
        y = torch.as_tensor(np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)).to(torch.int64)
    if y.shape != (len(x),):
        raise UsageError(f"labels has the shape {tuple(y.shape)}", f"give one label an image: ({len(x)},)")
    if len(y) and not bool(((y >= 0) & (y < model.num_classes)).all()):
        raise UsageError(f"labels holds a class that is not 0 to {model.num_classes - 1}", None)
    numbers = list(range(len(x))) if indices is None else [int(index) for index in indices]
    if len(numbers) != len(x) or len(set(numbers)) != len(numbers) or any(index < 0 for index in numbers):
        raise UsageError(
            "indices is not one number an image, each another", "leave it out, or give those of the data set"
        )
    return ImageArrays(x, y, model.num_classes, numbers)


def _choose_chunks(model: SmoothedClassifier, plan: ModelPlan, gradients: bool) -> None:
    choose_chunks(model, plan, model.arch, gradients, 0, Display(quiet=True))


def _shown(items: Iterator[T], total: int, progress: bool) -> Iterator[T]:
    """The items, counted on a bar if `progress`."""
    with Display(quiet=not progress).bar("images", total) as bar:
        for done, item in enumerate(items, 1):
            bar.update(done)
            yield item
