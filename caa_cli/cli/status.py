"""`caa status`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_cli.cli import options, running
from caa_cli.errors import UsageError


@running.guarded
def status(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE…", help="Outputs of caa attack, certify or compare, finished or not; shards; folders."
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show how far runs are: done, failed, rate and time left, a row for each shard or attack.

    [bold]caa status attack.json[/] also finds the shards of [bold]--shard auto[/], and the attacks of a comparison.
    Exit code 0: all are complete; 3: not yet.
    """
    if not files:
        raise UsageError("caa status needs the outputs of runs", "caa status attack.json, or a folder: caa status .")
    from caa_cli.display import Display
    from caa_cli.run.status import StatusRun

    raise typer.Exit(StatusRun(Display(False, json), files).execute())
