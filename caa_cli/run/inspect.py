"""`caa inspect`: what a checkpoint holds, what it leaves open, and how to attack it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

from caa_cli.config.choices import ENSEMBLES
from caa_cli.config.datasets import DATASETS
from caa_cli.config.ranges import OneOf
from caa_cli.config.settings import check_each
from caa_cli.data.datasets import class_names
from caa_cli.display import Display, Rows
from caa_cli.errors import DONE, ERROR, CaaError
from caa_cli.models.base_classifier import refuse_denoiser
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights, find_checkpoint, inspect_weights
from caa_cli.models.denoisers.denoiser import Denoiser
from caa_cli.models.denoisers.open import open_denoiser
from caa_cli.models.layouts import layout_of, normalisations_to_try, preset_of, sigma_in_name
from caa_cli.models.load import build_model, count_weights, input_of
from caa_cli.models.outline import outline
from caa_cli.models.prefixes import stored_normalisation
from caa_cli.models.recognise import Recognised
from caa_cli.models.resolve import Overrides, resolve_card
from caa_cli.results.documents import head
from caa_cli.run.classes import check_order
from caa_cli.run.describe_checkpoint import inspection_rows, joined, strict_json
from caa_cli.run.inspect_composite import (
    composite_rows,
    data_words,
    denoiser_at,
    denoiser_document,
    denoiser_words,
    joined_document,
)


@dataclass
class Inspection:
    """overrides: what the command line adds to the files. dataset: only gives the images' shape.

    checkpoints: one, or the members of an ensemble.  denoiser, denoiser_arch: of the one in front.
    """

    display: Display
    checkpoints: Sequence[str]
    dataset: Annotated[str | None, OneOf(DATASETS)]
    overrides: Overrides
    trust: bool = False
    ensemble: Annotated[str | None, OneOf(ENSEMBLES)] = None
    denoiser: str | None = None
    denoiser_arch: str | None = None

    def execute(self) -> int:
        """Show it; returns the exit code: 1 if an architecture is not recognised or was not inspected, or if a run
        would be refused."""
        check_each(self)
        check_each(self.overrides)
        read = cache(partial(inspect_weights, trust=self.trust))  # a file may hold gigabytes
        if len(self.checkpoints) == 1 and not self._front and self.overrides.arch is None:
            alone = denoiser_at(self.checkpoints[0], read, self.trust)
            if alone is not None:
                return self._show_denoiser(alone)
        front = None
        if self._front:
            front = open_denoiser(Path(self.denoiser) if self.denoiser else None, self.denoiser_arch, self.trust)
        all_weights = [read(find_checkpoint(path)) for path in self.checkpoints]
        for weights in all_weights:
            refuse_denoiser(weights)
        documents = [self.describe(weights) for weights in all_weights]
        for weights in all_weights:
            if weights.refusal is not None:
                self.display.error(weights.refusal.problem, weights.refusal.hint)
        document = joined_document(documents, self.ensemble, front)
        self.display.document(document)
        titles = [f"caa inspect {path}" for path in self.checkpoints]
        shown = [(title, inspection_rows(each)) for title, each in zip(titles, documents, strict=True)]
        shown += [] if len(shown) == 1 and front is None else [("together", composite_rows(document))]
        for title, rows in shown[:-1]:
            self.display.result(title, rows)
        recognised = all(each["arch"] is not None for each in documents)
        return self._show_last(*shown[-1], document["attack"], DONE if recognised else ERROR)

    def _show_last(self, title: str, rows: Rows, command: str | None, code: int) -> int:
        """Show the last rows with the command, if there is one; the exit code, which is an error without one."""
        self.display.result(title, rows, [] if command is None else [("attack", command)])
        return ERROR if command is None else code

    @property
    def _front(self) -> Sequence[str]:
        """The options that name the denoiser in front."""
        return denoiser_words(self.denoiser, self.denoiser_arch)

    def _show_denoiser(self, denoiser: Denoiser) -> int:
        document = denoiser_document(denoiser, self.dataset, self.overrides.sigma)
        self.display.document(document)
        return self._show_last(f"caa inspect {denoiser.path}", composite_rows(document), document["attack"], DONE)

    def describe(self, weights: Weights) -> dict[str, Any]:
        """All that is known, as JSON; unknown values are null, and named in `missing` if a run needs them."""
        card = weights.card
        recognised = weights.recognised if card is None else None
        layout = layout_of(weights)
        dataset = self.dataset or layout.dataset
        guessed, shape, classes = self._images(weights, dataset, recognised)
        dataset = dataset or guessed
        arch, problem = self._untried(weights, shape, classes)
        resolved, refused = None, None
        if problem is None and shape is not None and classes is not None:
            resolved, refused = self._resolved(weights, dataset, shape, classes)
            known = resolved or (None if self.overrides.arch is not None else card or recognised)
            arch = known.arch if known is not None else None
        if card is not None:
            classes = card.num_classes
        elif recognised is not None:
            classes = recognised.num_classes
        chosen = self._normalisation(weights, resolved)
        channels = shape[0] if shape else recognised.channels if recognised else None
        sigma = self.overrides.sigma or (card.sigma if card else None)
        document: dict[str, Any] = {
            **head("inspect"),
            "checkpoint": {"path": str(weights.path), "sha256": weights.sha256, "bytes": weights.size},
            "format": weights.format,
            "container": {"keys": list(weights.keys), "beside": weights.entries},
            "prefix": recognised.prefix if recognised else None,
            "source": layout.source,
            "arch": arch,
            "same_weights": recognised.other if recognised else None,
            "tensors": len(weights.tensors),
            "weights": count_weights(weights),
            "dtypes": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in weights.tensors.values()}),
            "num_classes": classes,
            "class_names": list(_class_names(weights, dataset, classes)),
            "channels": channels,
            "input_shape": list(shape) if shape else None,
            "dataset": dataset,
            "sigma": sigma,
            "sigma_in_name": None if sigma else sigma_in_name(weights.path),
            "normalisation": None if chosen is None else _described(*chosen),
            "normalisations_to_try": [] if chosen else normalisations_to_try(layout, dataset, channels or 3),
            "training": {"method": card.method, "tool_version": card.tool_version, **card.training} if card else {},
            "names": [] if card is not None or recognised is not None else outline(weights.tensors),
            "problem": problem if refused is None else refused.problem,
            "hint": None if refused is None else refused.hint,
        }
        document["missing"] = _missing(document, weights)
        document["attack"] = self._command(document, weights) if refused is None else None
        finite: dict[str, Any] = strict_json(document)
        return finite

    def _images(
        self, weights: Weights, dataset: str | None, recognised: Recognised | None
    ) -> tuple[str | None, tuple[int, int, int] | None, int | None]:
        """(data set, where it is known; shape of the images; classes), from what is given and recognised."""
        card, spec = weights.card, DATASETS.get(dataset or "")
        shape = None if spec is None else spec.shape
        resized = bool(self._front)  # behind a denoiser a classifier sees images of its own size
        if card is not None and (resized or self.dataset in (None, card.dataset) or shape is None):
            return self.dataset or card.dataset, card.input_shape, card.num_classes
        if spec is not None and shape is not None:
            channels, height, width = shape
            size = card.image_size(dataset) if card is not None else None
            return dataset, (channels, size or height, size or width), spec.classes
        if recognised is not None:
            size = recognised.size or (224 if recognised.num_classes == 1000 else 32)
            return None, (recognised.channels, size, size), recognised.num_classes
        if weights.module is not None:
            taken = input_of(weights.module.float(), weights.preprocessing(None))
            return (None, None, None) if taken is None else (None, *taken)
        return None, None, None

    def _normalisation(
        self, weights: Weights, resolved: ModelCard | None
    ) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """(mean, std), as given or as the file has them; None where neither says them.

        resolved: the card of a run, if there is one.
        """
        card = weights.card
        if self.overrides.normalisation:  # like a run: what is not given (mean or std) is the card's
            mean, std = (card.mean, card.std) if card else ((0.0,), (1.0,))
            return self.overrides.mean or mean, self.overrides.std or std
        if card is not None:
            return card.mean, card.std
        stored = stored_normalisation(weights.tensors)
        prepared = weights.preprocessing(self.overrides.arch)
        if stored is None and prepared is not None:
            stored = prepared.mean, prepared.std
        if stored is not None and resolved is not None:  # not in front of a network that has it inside
            return resolved.mean, resolved.std
        return stored

    def _untried(
        self, weights: Weights, shape: tuple[int, int, int] | None, classes: int | None
    ) -> tuple[str | None, str | None]:
        """(architecture, or None; why no network can be built with what is known, or None)."""
        if weights.refusal is not None:
            return None, weights.refusal.problem
        if None not in (shape, classes):
            return None, None
        if self.overrides.arch is not None:
            return self.overrides.arch, "not tried: which images it takes follows from --dataset"
        return None, "no architecture of caa's has these weights"

    def _resolved(
        self, weights: Weights, dataset: str | None, shape: tuple[int, int, int], classes: int
    ) -> tuple[ModelCard | None, CaaError | None]:
        """(the card of a run on these images, or None; why the run would be refused, or None)."""
        overrides = Overrides(
            self.overrides.arch, self.overrides.sigma or 1.0, self.overrides.mean, self.overrides.std
        )
        try:
            card, _ = resolve_card(weights, overrides, dataset or "folder", shape, classes)
            build_model(weights, card)
            if dataset in DATASETS:
                check_order(class_names(dataset), card.class_names, dataset)
        except CaaError as error:
            return None, error
        return card, None

    def _command(self, document: dict[str, Any], weights: Weights) -> str:
        """The command that attacks it, with unknown values in capitals."""
        words = ["caa", "attack", *(word for path in self.checkpoints for word in ("--checkpoint", path))]
        words += ["--ensemble", self.ensemble] if self.ensemble is not None else []
        words += self._front
        by_caa = document["source"] == "caa"
        dataset = document["dataset"]
        whole = weights.module is not None or weights.refusal is not None
        if (whole and weights.origin is None) or "running" in document["format"]:
            words.append("--trust-checkpoint")
        if not whole and (":" in (document["arch"] or ":") or self.overrides.arch is not None):
            words += ["--arch", self.overrides.arch or document["arch"] or "PACKAGE.MODULE:FACTORY"]
        if self.overrides.sigma is not None or document["sigma"] is None:
            words += [
                "--sigma",
                f"{self.overrides.sigma:g}" if self.overrides.sigma else document["sigma_in_name"] or "S",
            ]
        if self.overrides.normalisation:
            mean, std = document["normalisation"]["mean"], document["normalisation"]["std"]
            preset = document["normalisation"]["preset"]
            words += ["--normalisation", preset] if preset else ["--mean", joined(mean), "--std", joined(std)]
        elif document["normalisations_to_try"] and dataset is not None:
            words += ["--normalisation", document["normalisations_to_try"][0]]
        if self.checkpoints[0] != "demo" or self.dataset is not None:
            if not by_caa or self.dataset is not None:
                words += ["--dataset", dataset or "D"]
            words += data_words(dataset)
        return shlex.join(words)


def _described(mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    return {"mean": list(mean), "std": list(std), "preset": preset_of(mean, std)}


def _class_names(weights: Weights, dataset: str | None, classes: int | None) -> tuple[str, ...]:
    """What the checkpoint calls its classes, or its data set, where it has as many."""
    own = weights.card.class_names if weights.card else weights.origin.class_names if weights.origin else ()
    names = own or (class_names(dataset) if dataset in DATASETS else ())
    return names if len(names) == classes else ()


def _missing(document: dict[str, Any], weights: Weights) -> list[str]:
    needed = {"architecture": "arch", "σ": "sigma", "data set": "dataset", "normalisation": "normalisation"}
    if weights.refusal is not None:  # a whole network needs none
        del needed["architecture"]
    return [name for name, key in needed.items() if document[key] is None]
