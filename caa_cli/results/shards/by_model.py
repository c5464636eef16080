"""Result files of several models over the same images, grouped by model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.config.compared_settings import SHARED
from caa_cli.results.model_files import files_of, model_digest
from caa_cli.results.shards.result_file import R, ResultFile
from caa_cli.results.shards.run_results import by_label, check_same, grouped

# What belongs to the model; all else that decides which images are eligible, and what a proof is, has to agree.
MODEL_SETTINGS = ("arch", "mean", "std", "sigma", "ensemble", "denoiser_arch", "classifier_size")
_OF_CERTIFICATES = [f.name for f in fields(CertifyPlan) if f.name not in CertifyPlan.NOT_COMPARED]


def by_model(parts: Sequence[ResultFile[R]]) -> dict[str, list[ResultFile[R]]]:
    """The files of each smoothed model, a checkpoint at one σ, by a label, in the order of the first files.

    Raises UsageError, which names the difference, where the data or other settings than the model's differ, and for
    two models of one name.
    """
    groups = grouped(parts, lambda one, other: _model(one) == _model(other))
    firsts = [group[0] for group in groups]
    names = _OF_CERTIFICATES if parts[0].command == "certify" else SHARED
    shared = [name for name in names if name not in MODEL_SETTINGS]
    check_same(firsts, shared, lambda _: "only the model may differ", one_model=False)
    for group in groups if parts[0].command == "certify" else ():  # `join` checks those of attacks
        check_same(group, names, lambda _: "name the results of one run of each model")
    return by_label(_labels(firsts), groups, "but of different models")


def _model(part: ResultFile[Any]) -> tuple[str, float]:
    return str(model_digest(part.checkpoint)), float(part.config["sigma"])


def _labels(firsts: Sequence[ResultFile[Any]]) -> list[str]:
    """The user's name for a certificate's model, or the names of its files: DENOISER+CHECKPOINT.

    Where several models have one name, with what tells them apart: what an ensemble makes of its members, the
    content's digest, σ. (An attack's name is not its model's.)
    """
    stems = [_stem(part) for part in firsts]
    labels = []
    for part, stem in zip(firsts, stems, strict=True):
        alike = [other for other, name in zip(firsts, stems, strict=True) if name == stem]
        digest, sigma = _model(part)
        if part.command == "certify" and part.name is not None:
            labels.append(part.name)
            continue
        words, rule = [stem], part.checkpoint.get("ensemble")
        if rule and len({other.checkpoint.get("ensemble") for other in alike}) > 1:
            words.append(f"ensemble={rule}")
        if len({_model(other)[0] for other in alike if other.checkpoint.get("ensemble") == rule}) > 1:
            words.append(f"sha256={digest[:7]}")
        if len({_model(other)[1] for other in alike}) > 1:
            words.append(f"sigma={sigma:g}")
        labels.append(":".join(words))
    return labels


def _stem(part: ResultFile[Any]) -> str:
    """The names of the model's files, in the order that an image goes through them."""
    unnamed = part.config.get("arch") or "model"
    return "+".join(Path(str(file.get("path") or unnamed)).stem for file in files_of(part.checkpoint))
