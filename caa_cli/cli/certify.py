"""`caa certify`"""

from __future__ import annotations

from typing import Any

import typer

from caa_cli.cli import generate, layers, options, running
from caa_cli.cli.environment import is_typed
from caa_cli.cli.generate import COMPUTE, DATA, RUN
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.errors import UsageError
from caa_cli.runtime.collector import importing

_CERTIFICATE = ("samples", "selection_samples", "alpha", "bound", "certificate", "radius")


@running.guarded
@generate.with_options(
    options.of(CertifyPlan, DATA, options.MODEL_AND_IMAGES)
    | options.of(CertifyPlan, "Certificate", _CERTIFICATE)
    | options.of(CertifyPlan, COMPUTE, ("device", "dtype", "chunk_size", "max_memory"))
    | options.of(CertifyPlan, RUN, ("output", "tsv", "figure", *options.RUNNING))
)
def certify(context: typer.Context, **given: Any) -> None:
    """Certify a smoothed classifier: the radius within which each prediction can't change."""
    plan = layers.plan_of(CertifyPlan, given)
    if plan.radius is not None and is_typed(context, "bound"):
        raise UsageError(
            f"--bound {plan.bound} has no part in the decision on one --radius, by an exact test",
            "leave one of them out",
        )
    with importing():
        from caa_cli.run.certify import run_certify

    raise typer.Exit(run_certify(plan, *running.surroundings(plan.shard, given)))
