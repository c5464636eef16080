"""`caa certify`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_cli.cli import generate, layers, options, running
from caa_cli.cli.environment import is_typed
from caa_cli.cli.generate import RUN, option
from caa_cli.config.certify_plan import CertifyPlan
from caa_cli.errors import UsageError
from caa_cli.runtime.collector import importing

_CERTIFICATE = ("samples", "selection_samples", "alpha", "bound", "certificate", "radius")


@running.guarded
@generate.with_options_of(options.run)
@generate.with_options_of(options.model_and_images, before="samples")
@generate.with_options(generate.plan_settings(CertifyPlan, "Certificate", _CERTIFICATE), before="device")
def certify(
    context: typer.Context,
    device: options.Device = CertifyPlan.device,
    dtype: options.Dtype = CertifyPlan.dtype,
    chunk_size: options.ChunkSize = "auto",
    max_memory: options.MaxMemory = None,
    output: Annotated[
        Path, option(metavar="FILE.json", help="Where to write the result.", panel=RUN)
    ] = CertifyPlan.output,
    tsv: Annotated[
        Path | None,
        option(metavar="FILE.tsv", help="Also write a log in the format of Cohen et al. (2019).", panel=RUN),
    ] = None,
    figure: Annotated[
        Path | None,
        option(metavar="FILE.png", help="Draw certified accuracy by radius (needs matplotlib).", panel=RUN),
    ] = None,
    **given: Any,
) -> None:
    """Certify a smoothed classifier: the radius within which each prediction can't change."""
    given = locals() | given
    plan = layers.plan_of(CertifyPlan, given)
    if plan.radius is not None and is_typed(context, "bound"):
        raise UsageError(
            f"--bound {plan.bound} has no part in the decision on one --radius, by an exact test",
            "leave one of them out",
        )
    with importing():
        from caa_cli.run.certify import run_certify

    raise typer.Exit(run_certify(plan, *running.surroundings(plan.shard, given)))
