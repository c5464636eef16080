"""`certify` and `attack`: the pipelines of the commands, over images that the caller holds."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import nn

from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.config.choices import MODEL, SURROGATE_MODEL, VOTES
from caa_cli.config.model_plan import ModelPlan
from caa_cli.display import Display
from caa_cli.errors import UsageError
from caa_cli.python.errors import Interrupted, plain, plain_names
from caa_cli.python.inputs import Images, Labels, check_arrays, check_network
from caa_cli.python.results import AttackResults, CertifyResults
from caa_cli.python.settings import attack_plan, certify_plan
from caa_cli.python.surroundings import apart
from caa_cli.python.targets import Target, in_plan, targets_of
from caa_cli.results.certificates import CertifyRecord, summarise_certificates
from caa_cli.results.records import AttackRecord, summarise
from caa_cli.results.store.images import Image
from caa_cli.run.attack_pipeline import AttackPipeline
from caa_cli.run.certify_pipeline import CertifyPipeline
from caa_cli.run.feasibility import attack_warnings, certify_warnings, gradient_warnings
from caa_cli.run.progress import AttackProgress, CertifyProgress
from caa_cli.run.registry import build_attack, search_dtype_of
from caa_cli.run.threat_model import Access
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientSource
from caa_cli.smoothing.gradients import SurrogateModel
from caa_cli.tuning.choose import choose_chunks

_GRADIENTS = "use 'model', 'votes' or another model"


@plain_names
@apart()
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
    certificate: str = CertifyPlan.certificate,
    radius: float | None = None,
    chunk_size: int | None = None,
    progress: bool = False,
) -> CertifyResults:
    """The certified radius of each image, as `caa certify` finds it (Cohen et al., 2019).

    - `images`: (N, *input_shape) in [0, 1].
    - `labels`: (N,). None if they are unknown; then no image counts as right.
    - `indices`: decide the noise of each image; None for 0 to N − 1. With the indices that the images have in their
      data set, and the settings of a command, the results are that command's.
    - `radius`: decide only whether each image is certified at this radius, with far fewer samples.
    - `chunk_size`: noise samples per pass. None: measured once for each model and machine.
    - The other settings are those of the flags with the same names, and have their defaults.

    Raises UsageError for a setting or array that doesn't fit; Interrupted, with what is done, on Ctrl-C.
    """
    arrays = check_arrays(model, images, labels, indices)
    plan = certify_plan(
        model,
        seed=seed,
        chunk_size=chunk_size,
        samples=samples,
        selection_samples=selection_samples,
        alpha=alpha,
        bound=bound,
        certificate=certificate,
        radius=radius,
    )
    _warn(certify_warnings(plan, model.num_classes))
    _choose_chunks(model, plan, gradients=False)
    records: list[CertifyRecord] = []
    began = time.perf_counter()

    def results() -> CertifyResults:
        seconds = time.perf_counter() - began
        summary = None if labels is None else summarise_certificates(records, samples, seconds, radius)
        return CertifyResults.of(records, summary)

    with Display(quiet=not progress).bar("images", len(arrays)) as bar:
        shown = CertifyProgress(bar, len(arrays), lambda: records, radius)
        try:
            for record in CertifyPipeline(plan, model, arrays).run(arrays.indices):
                records.append(record)
                shown.count()
        except KeyboardInterrupt as error:
            raise Interrupted(results()) from error
    return results()


@plain_names
@apart()
def attack(
    model: SmoothedClassifier,
    images: Images,
    labels: Labels,
    method: str | Callable[..., Any] = "caa-newton",
    *,
    indices: Sequence[int] | None = None,
    seed: int = 0,
    gradient: str | nn.Module | SmoothedClassifier | None = None,
    target: Target | None = None,
    chunk_size: int | None = None,
    progress: bool = False,
    **settings: Any,
) -> AttackResults:
    """The nearest adversarial image of each image that an attack finds, each verified on fresh noise.

    - `images`: (N, *input_shape) in [0, 1].
    - `labels`: (N,) the true classes. An image that the model misclassifies is not attacked.
    - `method`: a name as for `caa attack --attack`, or an attack of yours: a function (classifier, images, labels,
      generator) → adversarial images. The default here is "caa-newton", which finds smaller radii; that of the
      command is "caa", the paper's.
    - `indices`: decide the noise of each image; None for 0 to N − 1. With the indices that the images have in their
      data set, and the method and settings of a command, the results are exactly that command's.
    - `gradient`: where the search's gradients come from: "model", "votes" (the search then starts from images among
      `images`), or another model of the same images and classes. None: as `model` has them.
    - `target`: the class to reach: a number, a name (`model.class_names`), "second", "least-likely", "random", a
      file, or (N,) a number for each image. None: any class but the label.
    - `chunk_size`: noise samples per pass. None: measured once for each model and machine.
    - `progress`: whether a bar is shown on stderr.
    - `settings`: every other setting by its flag's name (`samples=300`, `preset="paper"`). Those of the attack can be
      written without its name.

    Raises UsageError for a setting or array that doesn't fit; Interrupted, with what is done, on Ctrl-C.
    """
    if labels is None:
        raise UsageError(
            "labels is None, and only an image whose prediction is right is attacked",
            "give the class of each image; or the predictions: model.votes(images, samples=1000).argmax(dim=1)",
        )
    arrays = check_arrays(model, images, labels, indices)
    model, kind = _with_gradients(model, gradient)
    plan = attack_plan(model, method, kind, {"seed": seed, "chunk_size": chunk_size, **settings}, in_plan(target))
    dtype = search_dtype_of(plan, model.device)
    model = model if dtype is None else model.searched_in(dtype)
    targets = targets_of(target, plan, model, arrays)
    search = build_attack(plan)
    _warn([*attack_warnings(plan, search, model.num_classes), *gradient_warnings(model.search)])
    pipeline = AttackPipeline(plan, search, model, arrays, targets=targets)
    _choose_chunks(model, plan, gradients=model.differentiates)
    records: dict[int, AttackRecord] = {}
    adversarial: dict[int, Image] = {}
    began = time.perf_counter()

    def results() -> AttackResults:
        done = [records[index] for index in arrays.indices if index in records]
        summary = summarise(done, time.perf_counter() - began)
        return AttackResults.of(done, adversarial, model.input_shape, summary)

    with Display(quiet=not progress).bar("images", len(arrays)) as bar:
        shown = AttackProgress(bar, len(arrays), lambda: list(records.values()))
        pipeline.on_step = shown.show_step
        try:
            for record, image in pipeline.run(arrays.indices):
                if image is not None:
                    adversarial[record.index] = image
                records[record.index] = record
                shown.count()
        except KeyboardInterrupt as error:
            raise Interrupted(results()) from error
    return results()


def _with_gradients(
    model: SmoothedClassifier, gradient: str | nn.Module | SmoothedClassifier | None
) -> tuple[SmoothedClassifier, str]:
    """(the classifier with this source of gradients, the kind of it as the flag says)."""
    if gradient is None:
        return model, MODEL if model.differentiates else VOTES
    source: GradientSource
    if isinstance(gradient, str):
        if gradient not in (MODEL, VOTES):
            raise UsageError(f"gradient {gradient!r} is not known", _GRADIENTS)
        source, kind = Access(gradient).gradients(), gradient
    else:
        network = gradient.model if isinstance(gradient, SmoothedClassifier) else gradient
        if not isinstance(network, nn.Module):
            raise UsageError(f"gradient {gradient!r} is not known", _GRADIENTS)
        source, kind = SurrogateModel(copy.deepcopy(network)), f"{SURROGATE_MODEL}=python"
    other = copy.copy(model)
    other.gradients = source
    source.move_to(model.device, model.dtype)
    if isinstance(source, SurrogateModel):
        check_network("gradient", source.model, model, "give a model of the same images and classes")
    return other, kind


def _warn(problems: Iterable[str]) -> None:
    """Python warnings of the call in the caller's own code."""
    for problem in problems:
        warnings.warn(plain(problem), stacklevel=5)


def _choose_chunks(model: SmoothedClassifier, plan: ModelPlan, gradients: bool) -> None:
    choose_chunks(model, plan, model.arch, gradients, 0, Display(quiet=True))
