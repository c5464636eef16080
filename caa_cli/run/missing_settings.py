"""What neither the command line nor the checkpoint says of a run, named all at once."""

from __future__ import annotations

from caa_cli.config.datasets import DATASETS
from caa_cli.config.model_plan import ModelPlan
from caa_cli.errors import MissingSettingsError
from caa_cli.models.base_classifier import ModelFiles
from caa_cli.models.checkpoint import Weights
from caa_cli.models.layouts import layout_of, sigma_in_name
from caa_cli.models.resolve import describe_unknown


def check_settings(plan: ModelPlan, files: ModelFiles, dataset: str | None) -> None:
    """Raises MissingSettingsError for all that is missing. dataset: that of the plan or the checkpoint.

    Capitals in its hint stand for what only the user knows.
    """
    sigma = plan.sigma if plan.sigma is not None else files.sigma
    for weights in files.weights:
        _check_member(plan, weights, dataset, sigma)


def _check_member(plan: ModelPlan, weights: Weights, dataset: str | None, sigma: float | None) -> None:
    card, layout = weights.card, layout_of(weights)
    problems: list[str] = []
    flags: list[str] = []
    unsaid: list[str] = []
    if card is None and weights.module is None and weights.recognised is None and plan.arch is None:
        problems.append(describe_unknown(weights))
        flags.append("--arch PACKAGE.MODULE:FACTORY")
    if dataset is None:
        unsaid.append("which data set it was trained on")
        flags.append(f"--dataset {layout.dataset or 'D'}")
    spec = DATASETS.get(dataset or layout.dataset or "")
    if plan.data_dir is None and (spec is None or spec.layout is not None):
        if dataset is not None and spec is not None:
            problems.append(f"the data set {dataset} needs the folder that holds it: DIR, where {spec.layout}")
        flags.append("--data-dir DIR")
    if sigma is None:
        named = sigma_in_name(weights.path)
        unsaid.append("which noise it was trained for" + (f" (its name suggests σ = {named})" if named else ""))
        flags.append(f"--sigma {named or 'S'}")
    if unsaid:
        problems.insert(0, f"{weights.path} does not say {', nor '.join(unsaid)}")
    if problems:
        raise MissingSettingsError("; ".join(problems), flags)
