"""`caa inspect`"""

from __future__ import annotations

from typing import Annotated

import typer

from caa_cli.cli import completion, options, running
from caa_cli.cli.generate import DATA, option
from caa_cli.config.datasets import DATASETS
from caa_cli.errors import UsageError


@running.guarded
def inspect(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="The checkpoint, or `demo`; --checkpoint names it too.",
            autocompletion=completion.checkpoints,
        ),
    ] = None,
    checkpoint: options.OptionalCheckpoint = None,
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
    if (file is None) == (checkpoint is None):
        raise UsageError(
            "caa inspect needs a checkpoint" if file is None else f"{file} and --checkpoint {checkpoint} are two",
            f"caa inspect --checkpoint {checkpoint or 'demo'}",
        )
    path = str(checkpoint if file is None else file)
    chosen = options.normalisation({"normalisation": normalisation, "mean": mean, "std": std})
    from caa_cli.display import Display
    from caa_cli.models.resolve import Overrides
    from caa_cli.run.inspect import Inspection

    overrides = Overrides(arch, sigma, **chosen)
    raise typer.Exit(Inspection(Display(False, json), path, dataset, overrides, trust_checkpoint).execute())
