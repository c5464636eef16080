"""`caa attack`"""

from __future__ import annotations

from typing import Any

import typer

from caa_cli.cli import generate, layers, options, running
from caa_cli.cli.generate import CERTIFICATE, COMPUTE, DATA, RUN, SEARCH
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.runtime.collector import importing

_SEARCH = (
    *("attack", "trust_attack", "preset", "samples", "iterations", "restarts"),
    *("attack_sigma", "gradient", "target"),
)
_CERTIFICATE = (
    *("alpha", "bound", "certificate", "selection_samples", "certify_samples", "verify_samples"),
    *("verification", "finish"),
)
_COMPUTE = ("device", "dtype", "search_dtype", "batch_size", "chunk_size", "max_memory")


@running.guarded
@generate.with_options(
    options.of(AttackPlan, DATA, options.MODEL_AND_IMAGES)
    | options.of(AttackPlan, SEARCH, _SEARCH)
    | options.of(AttackPlan, CERTIFICATE, _CERTIFICATE)
    | generate.attack_settings()
    | options.of(AttackPlan, COMPUTE, _COMPUTE)
    | options.of(AttackPlan, RUN, ("output", "save_adversarial", "name", "figure", *options.RUNNING))
)
def attack(context: typer.Context, **given: Any) -> None:
    """Attack a smoothed classifier: find the nearest images that it misclassifies, each verified on fresh noise.

    [bold]caa attack --checkpoint demo[/] runs on a model and images that come with caa.
    """
    layers.check_trust(context, "attack", given["attack"])
    plan = layers.plan_of(AttackPlan, layers.with_preset(context, given, given["attack"]))
    with importing():
        from caa_cli.run.attack import run_attack

    raise typer.Exit(run_attack(plan, *running.surroundings(plan.shard, given)))
