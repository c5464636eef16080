"""`caa inspect` of what is no single classifier: a denoiser, alone or in front of one, and an ensemble."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from caa_cli.config.choices import ENSEMBLES, LOGITS
from caa_cli.config.datasets import DATASETS
from caa_cli.config.denoisers import DENOISERS
from caa_cli.display import Rows
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.checkpoint import Weights
from caa_cli.models.denoisers.custom import CUSTOM, check_output
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.denoisers.open import check_images, open_denoiser, recognise
from caa_cli.models.denoisers.read import weights_files
from caa_cli.models.hub_folder import describes_classifier
from caa_cli.results.documents import head
from caa_cli.run.describe_checkpoint import problem_rows
from caa_cli.runtime.words import counted


def denoiser_at(path: str, read: Callable[[Path], Weights], trust: bool) -> Denoiser | None:
    """The denoiser in a file, which `read` reads, or in a folder; None where it holds something else. Raises CaaError
    for half a folder: a configuration without weights."""
    place = Path(path)
    # Path.is_dir and Path.is_file raise for a name that is too long.
    if os.path.isdir(place):  # noqa: PTH112
        described = any(place.glob("*config.json")) or (place / "model_index.json").exists()
        if describes_classifier(place) or not (described or len(weights_files(place)) == 1):
            return None
        return open_denoiser(place, trust=trust)
    if not os.path.isfile(place):  # noqa: PTH113
        return None
    weights = read(place)
    if weights.card is not None or weights.module is not None or weights.recognised is not None:
        return None
    denoiser = recognise(DenoiserFile(path=place, sha256=weights.sha256, weights=weights))
    return None if denoiser is None else open_denoiser(place, trust=trust)


def describe_denoiser(denoiser: Denoiser) -> dict[str, Any]:
    """What is known of a denoiser, as JSON."""
    spec = DENOISERS.get(denoiser.family)
    return {
        **denoiser.record,
        "source": spec.title if spec is not None else "your own",
        "channels": denoiser.channels,
        "size": denoiser.size,
        "multiple": denoiser.multiple,
        "sigma": denoiser.sigma,
    }


def denoiser_document(denoiser: Denoiser, dataset: str | None, sigma: float | None) -> dict[str, Any]:
    """The document of `caa inspect` for a denoiser alone; `attack` is None where a run would be refused."""
    sigma, dataset = denoiser.sigma if sigma is None else sigma, dataset or denoiser.dataset
    words = ["caa", "attack", "--checkpoint", "CLASSIFIER", "--denoiser", denoiser.path]
    words += ["--sigma", f"{sigma:g}" if sigma is not None else "S"]
    words += ["--dataset", dataset or "D", *data_words(dataset)]
    refusal = _refusal(denoiser, dataset, sigma, None)
    return {
        **head("inspect"),
        "denoiser": describe_denoiser(denoiser),
        "problem": None if refusal is None else refusal.problem,
        "hint": None if refusal is None else refusal.hint,
        "attack": shlex.join(words) if refusal is None else None,
    }


def joined_document(
    documents: Sequence[dict[str, Any]], ensemble: str | None, denoiser: Denoiser | None
) -> dict[str, Any]:
    """The document of the first checkpoint, with the further members of an ensemble, and the denoiser in front.

    `attack` is None where a part is refused or they make no model, since any such command would be refused.
    """
    first, *others = documents
    document, misfits = dict(first), list[CaaError]()
    if others:
        document |= {"ensemble": ensemble or LOGITS, "members": others}
        classes = [each["num_classes"] for each in documents if each["num_classes"] is not None]
        if len(set(classes)) > 1:
            misfits.append(
                UsageError(
                    f"the checkpoints know {' and '.join(map(str, classes))} classes, not the same",
                    "name checkpoints of the same classes, in the same order",
                )
            )
    if denoiser is not None:
        document["denoiser"] = describe_denoiser(denoiser)
        sigma = first["sigma"] or first["sigma_in_name"]
        refusal = _refusal(denoiser, first["dataset"], sigma and float(sigma), first["channels"])
        misfits += [] if refusal is None else [refusal]
    problems = [each["problem"] for each in documents if each["problem"]] + [misfit.problem for misfit in misfits]
    hints = [each["hint"] for each in documents if each["hint"]] + [misfit.hint for misfit in misfits if misfit.hint]
    refused = misfits or any(each["attack"] is None for each in documents)
    document |= {"problem": "; ".join(problems) or None, "hint": "; ".join(dict.fromkeys(hints)) or None}
    return {**document, "attack": None if refused else document["attack"]}


def _refusal(denoiser: Denoiser, dataset: str | None, sigma: float | None, channels: int | None) -> CaaError | None:
    """Why a run with this denoiser would be refused; None where nothing says that it would.

    channels: of the images that the classifier takes. What is None is not known, and not checked.
    """
    if channels is not None and denoiser.channels not in (None, channels):
        return UsageError(
            f"the denoiser takes {counted(denoiser.channels, 'channel')}, the classifier {channels}",
            "name a denoiser that was trained on the classifier's images",
        )
    spec = DATASETS.get(dataset or "")
    shape = None if spec is None or spec.resized else spec.shape
    try:
        if shape is not None:
            check_images(denoiser, shape, dataset or "")
        if denoiser.expected_sigma is not None and sigma is not None:
            denoiser.expected_sigma(sigma)
        if denoiser.family == CUSTOM:  # only its own code knows what it is for
            network = denoiser.build(sigma or 1.0)
            if shape is not None:
                check_output(network, shape, denoiser.path)
    except CaaError as error:
        return error
    return None


def composite_rows(document: dict[str, Any]) -> Rows:
    """What several files make together; `document` is what `joined_document` returns."""
    rows = list(denoiser_rows(document["denoiser"])) if "denoiser" in document else []
    if "members" in document:
        members = 1 + len(document["members"])
        rows.append(("ensemble", f"{ENSEMBLES[document['ensemble']]} of {counted(members, 'checkpoint')}"))
    return [*rows, *problem_rows(document)]


def denoiser_rows(described: dict[str, Any]) -> Rows:
    """`described` is what `describe_denoiser` returns."""
    channels, size = described["channels"], described["size"]
    images = "any images" if channels is None else counted(channels, "channel")
    images += f", {size}×{size} pixels" if size is not None else ""
    images += f", multiples of {described['multiple']} pixels" if size is None and described["multiple"] > 1 else ""
    return [
        ("denoiser", described["arch"]),
        ("of", described["source"]),
        ("file", described["path"]),
        ("sha256", described["sha256"]),
        ("images", images),
        *([("σ", f"{described['sigma']:g}")] if described["sigma"] is not None else []),
    ]


def data_words(dataset: str | None) -> Sequence[str]:
    """The option that says where the images of this data set are; none for those that come with caa."""
    return [] if dataset in DATASETS and DATASETS[dataset].layout is None else ["--data-dir", "DIR"]


def denoiser_words(denoiser: str | None, arch: str | None) -> Sequence[str]:
    """The options that name it."""
    return [*(["--denoiser", denoiser] if denoiser else []), *(["--denoiser-arch", arch] if arch else [])]
