"""`caa check`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_cli.cli import options, running
from caa_cli.errors import UsageError


@running.guarded
def check(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE.json…", help="Results of caa attack, certify, compare or merge."),
    ] = None,
    require: options.Require = None,
    config: options.Config = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check finished results against requirements: exit code 4 if one is not met.

    [bold]caa check attack.json --require 'median_radius>=1.5'[/]
    """
    if not files or not require:
        raise UsageError(
            "caa check needs the results to check, and --require", "caa check attack.json --require 'eligible>=10'"
        )
    from caa_cli.display import Display
    from caa_cli.run.check import CheckRun

    raise typer.Exit(CheckRun(Display(quiet, json), files, running.requirements(require)).execute())
