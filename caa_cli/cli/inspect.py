"""`caa inspect`"""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from caa_cli.cli import completion, layers, options, running
from caa_cli.cli.generate import DATA, option
from caa_cli.config.datasets import DATASETS
from caa_cli.errors import UsageError
from caa_cli.runtime.collector import importing


@running.guarded
def inspect(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]…",
            help="The checkpoint, or `demo`, or a denoiser; --checkpoint names it too. Several make an ensemble.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    checkpoint: options.Checkpoint = None,
    ensemble: options.Ensemble = None,
    denoiser: options.Denoiser = None,
    denoiser_arch: options.DenoiserArch = None,
    dataset: Annotated[
        str | None,
        option(help="The data set it was trained on, if the file does not say.", panel=DATA, choices=DATASETS),
    ] = None,
    sigma: options.Sigma = None,
    arch: options.Arch = None,
    normalisation: options.Normalisation = None,
    mean: options.Mean = None,
    std: options.Std = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    json: options.Json = False,
) -> None:
    """Show what a checkpoint holds, what is missing, and the command that attacks it. No data set is needed."""
    if not files and not checkpoint:
        checkpoint = [layers.network_of(arch)]
    named = checkpoint or ["demo"]
    if files and checkpoint:
        raise UsageError(
            f"{files[0]} and --checkpoint {named[0]} are two",
            shlex.join(["caa", "inspect", "--checkpoint", named[0]]),
        )
    chosen = layers.normalisation({"normalisation": normalisation, "mean": mean, "std": std})
    from caa_cli.display import Display

    with importing():
        from caa_cli.models.resolve import Overrides
        from caa_cli.run.inspect import Inspection

    overrides = Overrides(arch, sigma, **chosen)
    front = None if denoiser is None else str(denoiser)
    inspection = Inspection(
        Display(False, json),
        files or named,
        dataset,
        overrides,
        trust_checkpoint,
        ensemble=ensemble,
        denoiser=front,
        denoiser_arch=denoiser_arch,
    )
    raise typer.Exit(inspection.execute())
