"""`caa inspect`"""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from caa_cli.cli import completion, generate, layers, options, running
from caa_cli.cli.generate import DATA, option
from caa_cli.config.datasets import DATASETS
from caa_cli.config.model_plan import ModelPlan
from caa_cli.errors import UsageError
from caa_cli.runtime.collector import importing

_MODEL = ("checkpoint", "ensemble", "denoiser", "denoiser_arch")
_OVERRIDES = ("sigma", "arch", "normalisation", "mean", "std", "trust_checkpoint")


@running.guarded
@generate.with_options(options.of(ModelPlan, DATA, _MODEL), before="dataset")
@generate.with_options(options.of(ModelPlan, DATA, _OVERRIDES), before="json")
def inspect(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]…",
            help="The checkpoint, or `demo`, or a denoiser; --checkpoint names it too. Several make an ensemble.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        option(help="The data set it was trained on, if the file does not say.", panel=DATA, choices=DATASETS),
    ] = None,
    json: options.Json = False,
    **given: Any,
) -> None:
    """Show what a checkpoint holds, what is missing, and the command that attacks it. No data set is needed."""
    checkpoint, arch, denoiser = given["checkpoint"], given["arch"], given["denoiser"]
    if not files and not checkpoint:
        checkpoint = [layers.network_of(arch)]
    if files and checkpoint:
        raise UsageError(
            f"{files[0]} and --checkpoint {checkpoint[0]} are two",
            shlex.join(["caa", "inspect", "--checkpoint", checkpoint[0]]),
        )
    normalisation = layers.normalisation(given)
    from caa_cli.display import Display

    with importing():
        from caa_cli.models.resolve import Overrides
        from caa_cli.run.inspect import Inspection

    inspection = Inspection(
        Display(False, json),
        files or checkpoint,
        dataset,
        Overrides(arch, given["sigma"], **normalisation),
        given["trust_checkpoint"],
        ensemble=given["ensemble"],
        denoiser=None if denoiser is None else str(denoiser),
        denoiser_arch=given["denoiser_arch"],
    )
    raise typer.Exit(inspection.execute())
