"""`caa inspect`"""

from __future__ import annotations

from typing import Annotated

import typer

from caa_cli.cli import options, running
from caa_cli.cli.generate import DATA, option


@running.guarded
def inspect(
    checkpoint: Annotated[str, typer.Argument(metavar="FILE", help="The checkpoint, or `demo`.")],
    dataset: Annotated[
        str | None, option(help="The data set it was trained on, if the file does not say.", panel=DATA)
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
    chosen = options.normalisation({"normalisation": normalisation, "mean": mean, "std": std})
    from caa_cli.display import Display
    from caa_cli.models.resolve import Overrides
    from caa_cli.run.inspect import Inspection

    overrides = Overrides(arch, sigma, **chosen)
    raise typer.Exit(Inspection(Display(False, json), checkpoint, dataset, overrides, trust_checkpoint).execute())
